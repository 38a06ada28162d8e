"""Users or sources by name, while they have connections or unpaid spending. No clock.

Spending is remembered until the buckets have refilled: a new connection gives no new burst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil
from typing import Final, Generic, TypeVar

from relay.server.worker.connection.budgets.token_bucket import TokenBucket
from relay.server.worker.due_times import DueTimes

IDLE_MAX: Final = 65_536
"""Maximum number of names without connections whose buckets are not full. Beyond it the oldest are
dropped: a client with that many names or addresses gains nothing from it."""
ROUNDED_S: Final = 60
"""Names whose buckets fill later than this are dropped at a multiple of it."""


class Payer:
    """An entity that is charged: a source or an account."""

    __slots__ = ("connections", "name")

    def __init__(self, name: str) -> None:
        """Create without connections."""
        self.name = name
        self.connections = 0

    def buckets(self) -> Iterable[TokenBucket | None]:
        """Return its buckets. None stands for one that is not limited."""
        raise NotImplementedError


Some = TypeVar("Some", bound=Payer)


class Ledger(Generic[Some]):
    """The payers of a worker, by name."""

    def __init__(self, make: Callable[[str], Some], clock: Callable[[], float]) -> None:
        """Create an empty ledger.

        Args:
            make: creates a payer that has spent nothing, from its name.
            clock: monotonic seconds.
        """
        self._make = make
        self._clock = clock
        self._by_name: dict[str, Some] = {}
        self._idle: dict[str, None] = {}
        """Names without connections, oldest first."""
        self._full: DueTimes[str] = DueTimes()
        """When all buckets of each idle name are full again."""

    def open(self, name: str) -> Some:
        """Return the payer for a new connection. The caller must ``close`` it."""
        payer = self._by_name.get(name)
        if payer is None:
            payer = self._by_name[name] = self._make(name)
        payer.connections += 1
        if self._idle:
            self._idle.pop(name, None)
            self._full.remove(name)
        return payer

    def get(self, name: str) -> Some | None:
        """Return the payer with this name, if it is known."""
        return self._by_name.get(name)

    def close(self, payer: Some) -> None:
        """Note that one of the payer's connections has ended."""
        payer.connections -= 1
        if payer.connections:
            return
        self._idle[payer.name] = None
        if not self._forget(payer.name, self._clock()) and len(self._idle) > IDLE_MAX:
            oldest = next(iter(self._idle))
            self._full.remove(oldest)
            del self._idle[oldest], self._by_name[oldest]

    def sweep(self) -> None:
        """Drop idle payers whose buckets are full. Called about once a second."""
        now = self._clock()
        for name in self._full.take(now):
            self._forget(name, now)

    def payers(self) -> Iterable[Some]:
        """Return all payers."""
        return self._by_name.values()

    def __len__(self) -> int:
        return len(self._by_name)

    def _forget(self, name: str, now: float) -> bool:
        full_s = 0.0
        for bucket in self._by_name[name].buckets():
            if bucket is not None:
                full_s = max(full_s, bucket.full_in_s(now))
        if full_s:
            if full_s > ROUNDED_S:
                full_s = ceil((now + full_s) / ROUNDED_S) * ROUNDED_S - now
            self._full.put(name, now + full_s)
            return False
        del self._idle[name], self._by_name[name]
        return True
