"""Where group commits run: in the loop (durability "process") or in threads ("power").

Either way a commit is begun, and its outcome is collected by the turn: nothing runs in the middle
of whoever submitted, and nothing before the store has returned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from relay.store.errors import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission
    from relay.server.worker.wakeup import Wakeup
    from relay.store.log import Outcome, Partition

log = logging.getLogger("relay.worker")


class Waiting(NamedTuple):
    """A submission that waits for its commit, and where its answer goes."""

    port: Port
    tag: int
    submission: Submission


class Commit(NamedTuple):
    """A group commit that is over."""

    partition: int
    group: list[Waiting]
    outcomes: list[Outcome] | StoreError


class Commits(Protocol):
    """Runs group commits, at most one of a partition at a time."""

    def begin(self, index: int, partition: Partition, group: list[Waiting], now_ms: int) -> None:
        """Begin a commit. Raises nothing: whatever happens, its senders must be answered."""

    def finished(self) -> list[Commit]:
        """Return the commits that are over and were not returned before."""


class CommitsInLoop:
    """Commits in the loop: 13 µs for one message, far below a thread's hand-over."""

    def __init__(self) -> None:
        self._finished: list[Commit] = []

    def begin(self, index: int, partition: Partition, group: list[Waiting], now_ms: int) -> None:
        """See ``Commits``."""
        self._finished.append(Commit(index, group, _append(partition, group, now_ms)))

    def finished(self) -> list[Commit]:
        """See ``Commits``."""
        if not self._finished:
            return []
        finished, self._finished = self._finished, []
        return finished


class CommitsInThreads:
    """A commit waits for the disk, the loop does not.

    What arrives meanwhile is the next group: batches grow by themselves.
    """

    def __init__(
        self,
        run_in_thread: Callable[[Callable[[], list[Outcome] | StoreError]], asyncio.Future[object]],
        wakeup: Wakeup,
    ) -> None:
        self._run_in_thread = run_in_thread
        self._wakeup = wakeup
        self._finished: list[Commit] = []

    def begin(self, index: int, partition: Partition, group: list[Waiting], now_ms: int) -> None:
        """See ``Commits``."""

        def ended(future: asyncio.Future[object]) -> None:
            outcomes = future.result()
            assert isinstance(outcomes, list | StoreError)
            self._finished.append(Commit(index, group, outcomes))
            self._wakeup.request()

        self._run_in_thread(lambda: _append(partition, group, now_ms)).add_done_callback(ended)

    def finished(self) -> list[Commit]:
        """See ``Commits``."""
        finished, self._finished = self._finished, []
        return finished


def _append(partition: Partition, group: list[Waiting], now_ms: int) -> list[Outcome] | StoreError:
    try:
        return partition.append([waiting.submission for waiting in group], now_ms)
    except StoreError as error:
        return error
    except Exception:
        log.exception("commit_failed")
        return StoreUnavailable("an internal error")
