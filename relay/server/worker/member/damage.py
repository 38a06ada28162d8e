"""Reports what is found damaged while reading: a partition's file to its home, which refuses it.

One log that makes no sense is told to the operator alone: its partition serves the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from relay.bus.messages import Damaged
from relay.chat.partition import PARTITIONS
from relay.server.worker.error_codes import code_of
from relay.store.errors import LogDamaged, StoreCorrupt

if TYPE_CHECKING:
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.server.worker.member.routes import Routes
    from relay.store.errors import StoreError
    from relay.store.log import Reader
    from relay.wire.codes import ErrorCode

REASON_CHARS_MAX: Final = 1024
T = TypeVar("T")


class DamageReports:
    """Reports damaged partitions to their homes, and what is damaged of one log once."""

    def __init__(
        self, routes: Routes, reader_at: Callable[[int], Reader], logs: DamagedLogs
    ) -> None:
        self._routes = routes
        self._reader_at = reader_at
        self._logs = logs

    def report(self, partition: int, error: StoreError) -> ErrorCode:
        """Tell whoever can do something if it is damage. Returns what is answered to who asked."""
        if isinstance(error, LogDamaged):
            self.report_log(error)
        port = self._routes.ports[partition]
        if isinstance(error, StoreCorrupt) and port is not None:
            port.send(Damaged(partition, str(error)[:REASON_CHARS_MAX]))
        return code_of(error)

    def report_log(self, error: LogDamaged) -> None:
        """Log the damage for the operator, once."""
        self._logs.report(error.log, error)

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
