"""What the connections of each source have in use, on one worker. Pure: the clock is passed in.

Connections of a source are spread over the workers, and each worker counts for itself: what all of
them allow a source together is exact to a factor of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from relay.server.sources import is_loopback, source_of
from relay.server.worker.connection.ledger import Ledger, Payer
from relay.server.worker.connection.token_bucket import TokenBucket, of_bytes, of_rooms, of_work

if TYPE_CHECKING:
    from relay.limit_settings import Limits


class Account(Payer):
    """One source: an IPv4 address, or the /64 of an IPv6 address."""

    __slots__ = ("exempt", "guests", "joins", "loopback", "members", "rooms", "sent", "work")

    def __init__(self, name: str) -> None:
        """Begin with nothing in use, and without bounds."""
        super().__init__(name)
        self.loopback = False
        """True for this machine itself."""
        self.exempt = False
        """True while no budget by source holds for it."""
        self.sent: TokenBucket | None = None
        """For bytes that are sent to logs; None: no bound."""
        self.rooms: TokenBucket | None = None
        """For rooms that are begun; None: no bound."""
        self.work: TokenBucket | None = None
        """For what requests cost; None: no bound."""
        self.members = 0
        """Connections that are logged in."""
        self.guests = 0
        """Connections that are not (yet, or any more)."""
        self.joins = 0
        """Logs that its connections follow, each counted for each connection."""

    @property
    def source(self) -> str:
        """Its name."""
        return self.name

    def buckets(self) -> Iterable[TokenBucket | None]:
        """See ``Payer``."""
        return self.sent, self.rooms, self.work


class Accounts:
    """The accounts of all sources that have connections, or have spent something of late."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._ledger = Ledger(Account, clock)
        self.joins = 0
        """Of all sources."""

    def open(self, peer: str) -> Account:
        """Return the account of a new connection from an address. ``close`` it in the end."""
        source = source_of(peer)
        known = self._ledger.get(source) is not None
        account = self._ledger.open(source)
        if not known:
            account.loopback = is_loopback(peer)
            self._bound(account)
        return account

    def rebound(self, limits: Limits) -> None:
        """Hold every source to other limits from now on; what they have spent is forgotten."""
        self._limits = limits
        for account in self._ledger.payers():
            self._bound(account)

    def _bound(self, account: Account) -> None:
        limits, now = self._limits, self._clock()
        account.exempt = exempt = limits.loopback_exempt and account.loopback
        account.sent = of_bytes(0 if exempt else limits.send_bytes_per_s_per_source, now)
        account.rooms = of_rooms(0 if exempt else limits.rooms_per_minute_per_source, now)
        account.work = of_work(0 if exempt else limits.work_per_s_per_source, now)

    def close(self, account: Account) -> None:
        """A connection of this account is gone."""
        if account.connections == 1:
            assert not account.members
            assert not account.guests
            assert not account.joins
        self._ledger.close(account)

    def sweep(self) -> None:
        """Forget whose buckets are full again. Called about once a second."""
        self._ledger.sweep()

    def count_joins(self, account: Account, change: int) -> None:
        """A connection of this account follows so many more logs."""
        account.joins += change
        self.joins += change

    def __len__(self) -> int:
        return len(self._ledger)
