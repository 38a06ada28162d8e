"""Usage and limits of each source on one worker. Pure: the clock is passed in.

Connections of a source are spread over the workers, and each worker counts for itself: what all of
them allow a source together is exact to a factor of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from relay.server.sources import is_loopback, source_of
from relay.server.worker.connection.ledger import Ledger, Payer
from relay.server.worker.connection.token_bucket import (
    TokenBucket,
    of_bytes,
    of_rooms,
    of_waste,
    of_work,
)

if TYPE_CHECKING:
    from relay.limit_settings import Limits


class Source(Payer):
    """One source: an IPv4 address, or the /64 of an IPv6 address.

    Its buckets are made when something is spent.
    """

    __slots__ = (
        "_limits", "_rooms", "_sent", "_waste", "_work", "authenticated", "exempt", "joins",
        "loopback", "unauthenticated",
    )  # fmt: skip

    def __init__(self, name: str, limits: Limits) -> None:
        """Begin with nothing in use."""
        super().__init__(name)
        self.loopback = False
        """True for this machine itself."""
        self.authenticated = 0
        """Connections that are logged in."""
        self.unauthenticated = 0
        """Connections that are not (yet, or any more)."""
        self.joins = 0
        """Logs that its connections follow, each counted for each connection."""
        self.exempt = False
        """True while no budget by source holds for it."""
        self.bound(limits)

    def bound(self, limits: Limits) -> None:
        """Hold it to these limits; what it has spent is forgotten."""
        self._limits = limits
        self.exempt = limits.loopback_exempt and self.loopback
        self._sent: TokenBucket | None = None
        self._rooms: TokenBucket | None = None
        self._work: TokenBucket | None = None
        self._waste: TokenBucket | None = None

    @property
    def source(self) -> str:
        """Its name."""
        return self.name

    def sent(self, now: float) -> TokenBucket | None:
        """Return the bucket for bytes that are sent to logs; None: they are not bounded."""
        if self._sent is None and not self.exempt:
            self._sent = of_bytes(self._limits.send_bytes_per_s_per_source, now)
        return self._sent

    def rooms(self, now: float) -> TokenBucket | None:
        """Return the bucket for rooms that are begun; None: they are not bounded."""
        if self._rooms is None and not self.exempt:
            self._rooms = of_rooms(self._limits.rooms_per_minute_per_source, now)
        return self._rooms

    def work(self, now: float) -> TokenBucket | None:
        """Return the bucket for what requests cost; None: it is not bounded."""
        if self._work is None and not self.exempt:
            self._work = of_work(self._limits.work_per_s_per_source, now)
        return self._work

    def waste(self, now: float) -> TokenBucket | None:
        """Return the bucket for what brings nothing; None: it is not bounded."""
        if self._waste is None and not self.exempt:
            self._waste = of_waste(self._limits.waste_per_s_per_source, now)
        return self._waste

    def buckets(self) -> Iterable[TokenBucket | None]:
        """See ``Payer``."""
        return self._sent, self._rooms, self._work, self._waste


class Sources:
    """All sources that have connections, or have spent something of late."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._ledger: Ledger[Source] = Ledger(self._made, clock)
        self.joins = 0
        """Of all sources."""

    def open(self, peer: str) -> Source:
        """Return the source of a new connection, by its address. ``close`` it in the end."""
        source = self._ledger.open(source_of(peer))
        if source.connections == 1 and is_loopback(peer) and not source.loopback:
            source.loopback = True
            source.bound(self._limits)
        return source

    def rebound(self, limits: Limits) -> None:
        """Hold every source to other limits from now on; what they have spent is forgotten."""
        self._limits = limits
        for source in self._ledger.payers():
            source.bound(limits)

    def _made(self, source: str) -> Source:
        return Source(source, self._limits)

    def close(self, source: Source) -> None:
        """A connection from this source is gone."""
        if source.connections == 1:
            assert not source.authenticated
            assert not source.unauthenticated
            assert not source.joins
        self._ledger.close(source)

    def sweep(self) -> None:
        """Forget whose buckets are full again. Called about once a second."""
        self._ledger.sweep()

    def count_joins(self, source: Source, change: int) -> None:
        """Connections from this source follow so many more logs."""
        source.joins += change
        self.joins += change

    def __len__(self) -> int:
        return len(self._ledger)
