"""Usage and limits of each source on one worker. Pure: the clock is passed in.

Connections of a source are spread over the workers, and each worker counts separately. So the total
that a source may use is exact only up to a factor of the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from relay.server.sources import is_loopback, source_of
from relay.server.worker.connection.budgets.ledger import Ledger, Payer
from relay.server.worker.connection.budgets.token_bucket import (
    TokenBucket,
    of_accounts,
    of_bytes,
    of_rooms,
    of_waste,
    of_work,
)

if TYPE_CHECKING:
    from relay.limit_settings import Limits


class Source(Payer):
    """One source: an IPv4 address, or the /64 prefix of an IPv6 address.

    Its buckets are created when something is spent.
    """

    __slots__ = (
        "_accounts", "_limits", "_rooms", "_sent", "_waste", "_work", "authenticated", "exempt",
        "joins", "loopback", "unauthenticated",
    )  # fmt: skip

    def __init__(self, name: str, limits: Limits) -> None:
        """Create without usage."""
        super().__init__(name)
        self.loopback = False
        """True for connections that this machine itself has opened."""
        self.authenticated = 0
        """Connections that are logged in."""
        self.unauthenticated = 0
        """Connections that are not logged in (not yet, or no longer)."""
        self.joins = 0
        """Followed logs, counted once per connection."""
        self.exempt = False
        """True while no budgets by source apply to it."""
        self.bound(limits)

    def bound(self, limits: Limits) -> None:
        """Apply new limits. Previous spending is forgotten."""
        self._limits = limits
        self.exempt = limits.loopback_exempt and self.loopback
        self._sent: TokenBucket | None = None
        self._rooms: TokenBucket | None = None
        self._work: TokenBucket | None = None
        self._waste: TokenBucket | None = None
        self._accounts: TokenBucket | None = None

    @property
    def source(self) -> str:
        """Its name."""
        return self.name

    def sent(self, now: float) -> TokenBucket | None:
        """Return the bucket for bytes sent to logs; None: no limit."""
        if self._sent is None and not self.exempt:
            self._sent = of_bytes(self._limits.send_bytes_per_s_per_source, now)
        return self._sent

    def rooms(self, now: float) -> TokenBucket | None:
        """Return the bucket for created rooms; None: no limit."""
        if self._rooms is None and not self.exempt:
            self._rooms = of_rooms(self._limits.rooms_per_minute_per_source, now)
        return self._rooms

    def work(self, now: float) -> TokenBucket | None:
        """Return the bucket for the cost of requests; None: no limit."""
        if self._work is None and not self.exempt:
            self._work = of_work(self._limits.work_per_s_per_source, now)
        return self._work

    def waste(self, now: float) -> TokenBucket | None:
        """Return the bucket for useless requests; None: no limit."""
        if self._waste is None and not self.exempt:
            self._waste = of_waste(self._limits.waste_per_s_per_source, now)
        return self._waste

    def accounts(self, now: float) -> TokenBucket | None:
        """Return the bucket for names that are registered; None: no limit."""
        if self._accounts is None and not self.exempt:
            self._accounts = of_accounts(self._limits.accounts_per_hour_per_source, now)
        return self._accounts

    def buckets(self) -> Iterable[TokenBucket | None]:
        """See ``Payer``."""
        return self._sent, self._rooms, self._work, self._waste, self._accounts


class Sources:
    """All sources that have connections or have spent something recently."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._ledger: Ledger[Source] = Ledger(self._made, clock)
        self.joins = 0
        """Followed logs of all sources."""

    def open(self, peer: str, *, proxied: bool = False) -> Source:
        """Return the source for a new connection's address. The caller must ``close`` it.

        ``proxied``: the connection is a proxy's, so it does not show that its client is on this
        machine, although the proxy may be.
        """
        name, loopback = source_of(peer), is_loopback(peer)
        if loopback and proxied:
            # A source of its own: programs of this machine may be connected at the same time.
            name, loopback = f"{name} (proxy)", False
        source = self._ledger.open(name)
        if source.connections == 1 and loopback and not source.loopback:
            source.loopback = True
            source.bound(self._limits)
        return source

    def rebound(self, limits: Limits) -> None:
        """Apply new limits to every source. Previous spending is forgotten."""
        self._limits = limits
        for source in self._ledger.payers():
            source.bound(limits)

    def _made(self, source: str) -> Source:
        return Source(source, self._limits)

    def close(self, source: Source) -> None:
        """Note that a connection from this source has ended."""
        if source.connections == 1:
            assert not source.authenticated
            assert not source.unauthenticated
            assert not source.joins
        self._ledger.close(source)

    def sweep(self) -> None:
        """Drop idle sources whose buckets are full. Called about once a second."""
        self._ledger.sweep()

    def count_joins(self, source: Source, change: int) -> None:
        """Change the number of logs that connections from this source follow."""
        source.joins += change
        self.joins += change

    def __len__(self) -> int:
        return len(self._ledger)
