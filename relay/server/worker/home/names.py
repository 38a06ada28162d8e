"""Who holds which name, over all workers. An instance proves itself by its secret.

Invariant "Presence is derived": the same instance coming back replaces its ghost at once; another
one is refused. Which of two is the ghost is told by when their connections were accepted, not by
whose claim comes first: a worker that was stopped, or cut off from here, may report its ghost last.
After this home began (a restart), names stay reserved until the other workers have reported again
which they hold.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, NamedTuple

from relay.bus.link import Port
from relay.bus.messages import Claim, Claimed, Evict, Release
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of

SETTLE_S_MAX: Final = 2.0
"""A worker that is silent for so long holds nothing that others must wait for."""


class Holder(NamedTuple):
    """A session somewhere that has a name."""

    secret: bytes
    port: Port
    tag: int
    since_us: int

    def __repr__(self) -> str:
        return f"Holder(tag={self.tag})"


class NameRegistry:
    """The names whose inbox logs have their home here."""

    def __init__(self, clock: Callable[[], float], silent: Callable[[set[int]], bool]) -> None:
        """Begin, unsettled.

        Args:
            clock: monotonic seconds.
            silent: given the generations that have announced themselves, tells whether a live
                worker has not.
        """
        self._clock = clock
        self._silent = silent
        self._held: dict[str, Holder] = {}
        self._waiting: list[tuple[Port, Claim]] = []
        self._unconfirmed: dict[Port, set[str]] = {}
        """Names that a worker held and is about to report again, or has lost meanwhile."""
        self._announced: set[int] = set()
        self._settle_by = clock() + SETTLE_S_MAX
        self._settled = False

    def unsettle(self) -> None:
        """Partitions came from another worker: everybody has to report again what it holds."""
        self._announced.clear()
        self._settle_by = self._clock() + SETTLE_S_MAX
        self._settled = False

    def announced(self, port: Port) -> None:
        """A worker has reported everything that it holds."""
        for name in self._unconfirmed.pop(port, ()):
            if name in self._held and self._held[name].port is port:
                del self._held[name]
        self._announced.add(port.generation)
        self.settle()

    def settle(self) -> None:
        """Answer the claims that waited, once all workers have reported or their time is up."""
        if not self._settled:
            if self._clock() < self._settle_by and self._silent(self._announced):
                return
            self._settled = True
        waiting, self._waiting = self._waiting, []
        for port, claim in waiting:
            self._answer(port, claim)

    def claim(self, port: Port, claim: Claim) -> None:
        """A session wants a name, or has it already."""
        if self._settled or claim.held:
            self._answer(port, claim)
        else:
            self._waiting.append((port, claim))
            self.settle()

    def mark_unconfirmed(self, port: Port, partition: int) -> None:
        """A worker is about to report anew which names it holds: what it leaves out is free."""
        names = self._unconfirmed.setdefault(port, set())
        names.update(
            name
            for name, held in self._held.items()
            if held.port is port and partition_of(INBOX_PREFIX + name) == partition
        )
        self._waiting = [
            (waiting, claim)
            for waiting, claim in self._waiting
            if waiting is not port or partition_of(INBOX_PREFIX + claim.name) != partition
        ]

    def _answer(self, port: Port, claim: Claim) -> None:
        self._unconfirmed.get(port, set()).discard(claim.name)
        held = self._held.get(claim.name)
        if held is not None and (held.port, held.tag) != (port, claim.tag):
            same = hmac.compare_digest(held.secret, claim.secret)
            replaced = same and claim.since_us < held.since_us  # by its own later connection
            if not same or replaced:
                port.send(Claimed(claim.tag, False, replaced))
                return
            held.port.send(Evict(held.tag))
        self._held[claim.name] = Holder(claim.secret, port, claim.tag, claim.since_us)
        port.send(Claimed(claim.tag, True, False))

    def release(self, port: Port, message: Release) -> None:
        """A session ended. Without effect when another one holds the name by now."""
        held = self._held.get(message.name)
        if held is not None and held.port is port and held.tag == message.tag:
            del self._held[message.name]
        self._waiting = [
            (waiting, claim)
            for waiting, claim in self._waiting
            if waiting is not port or claim.tag != message.tag
        ]

    def drop(self, port: Port) -> None:
        """A worker is gone, and its sessions with it."""
        self._held = {name: held for name, held in self._held.items() if held.port is not port}
        self._waiting = [waiting for waiting in self._waiting if waiting[0] is not port]
        self._unconfirmed.pop(port, None)
        self._announced.discard(port.generation)
