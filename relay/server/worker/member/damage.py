"""Reports what is found damaged while reading: a partition's file to its home, which refuses it.

One log that makes no sense is told to the operator alone: its partition serves the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from relay.bus.messages import Damaged
from relay.chat.partition import PARTITIONS
from relay.server.worker.error_codes import code_of
from relay.server.worker.stored import report_log
from relay.store.errors import LogDamaged, StoreCorrupt

if TYPE_CHECKING:
    from relay.server.worker.member.routes import Routes
    from relay.store.errors import StoreError
    from relay.store.log import Reader
    from relay.wire.codes import ErrorCode

REASON_CHARS_MAX: Final = 1024
REPORTED_MAX: Final = 1024
REPORTED_S: Final = 3600.0
"""How long as many as ``REPORTED_MAX`` reports are remembered at least."""
T = TypeVar("T")


class DamageReports:
    """Reports damaged partitions to their homes, and what is damaged of one log once."""

    def __init__(
        self, routes: Routes, reader_at: Callable[[int], Reader], clock: Callable[[], float]
    ) -> None:
        self._routes = routes
        self._reader_at = reader_at
        self._clock = clock
        self._reported: set[tuple[str, str]] = set()
        """(log, reason)."""
        self._reported_since = clock()

    def report(self, partition: int, error: StoreError) -> ErrorCode:
        """Tell whoever can do something if it is damage. Returns what is answered to who asked."""
        if isinstance(error, LogDamaged):
            self.report_log(error)
        port = self._routes.ports[partition]
        if isinstance(error, StoreCorrupt) and port is not None:
            port.send(Damaged(partition, str(error)[:REASON_CHARS_MAX]))
        return code_of(error)

    def report_log(self, error: LogDamaged) -> None:
        """Log the damage for the operator, once: whoever may read it can read it again and again.

        If much is damaged, no more than ``REPORTED_MAX`` lines are written in ``REPORTED_S``.
        """
        key = error.log, str(error)
        if key in self._reported:
            return
        if len(self._reported) >= REPORTED_MAX:
            if self._clock() - self._reported_since < REPORTED_S:
                return
            self._reported.clear()
        if not self._reported:
            self._reported_since = self._clock()
        self._reported.add(key)
        report_log(error)

    def answers(self, ask: Callable[[Reader], T]) -> Iterator[T]:
        """Yield the answer of each partition's reader, leaving out damaged partitions.

        Raises:
            StoreError: one cannot be read now.
        """
        for index in range(PARTITIONS):
            try:
                yield ask(self._reader_at(index))
            except StoreCorrupt as error:
                self.report(index, error)
