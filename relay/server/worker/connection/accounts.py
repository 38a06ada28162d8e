"""What the connections of each source have in use, on one worker. Pure: the clock is passed in.

Connections of a source are spread over the workers, and each worker counts for itself: what all of
them allow a source together is exact to a factor of their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.server.sources import is_loopback, source_of
from relay.server.worker.connection.token_bucket import TokenBucket

if TYPE_CHECKING:
    from relay.settings import Limits

BURST_S: Final = 10.0
"""Bytes that were not sent for so long may be sent at once."""
MINUTE_S: Final = 60.0
IDLE_ACCOUNTS_MAX: Final = 65_536
"""Sources without connections whose buckets are not full again. Beyond it the oldest are forgotten:
whoever has so many addresses gains nothing by it."""


class Account:
    """One source: an IPv4 address, or the /64 of an IPv6 address."""

    __slots__ = (
        "connections",
        "exempt",
        "guests",
        "joins",
        "loopback",
        "members",
        "rooms",
        "sent",
        "source",
    )

    def __init__(self, source: str, loopback: bool) -> None:
        """Begin with nothing in use, and without bounds.

        Args:
            source: its name.
            loopback: True for this machine itself.
        """
        self.source = source
        self.loopback = loopback
        self.exempt = False
        """True while no budget by source holds for it."""
        self.sent: TokenBucket | None = None
        """For bytes that are sent to logs; None: no bound."""
        self.rooms: TokenBucket | None = None
        """For rooms that are begun; None: no bound."""
        self.connections = 0
        self.members = 0
        """Connections that are logged in."""
        self.guests = 0
        """Connections that are not (yet, or any more)."""
        self.joins = 0
        """Logs that its connections follow, each counted for each connection."""


class Accounts:
    """The accounts of all sources that have connections, or have spent something of late."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._by_source: dict[str, Account] = {}
        self._idle: dict[str, None] = {}
        self.joins = 0
        """Of all sources."""

    def open(self, peer: str) -> Account:
        """Return the account of a new connection from an address. ``close`` it in the end."""
        source = source_of(peer)
        account = self._by_source.get(source)
        if account is None:
            account = self._by_source[source] = Account(source, is_loopback(peer))
            self._bound(account)
        account.connections += 1
        self._idle.pop(source, None)
        return account

    def rebound(self, limits: Limits) -> None:
        """Hold every source to other limits from now on; what they have spent is forgotten."""
        self._limits = limits
        for account in self._by_source.values():
            self._bound(account)

    def _bound(self, account: Account) -> None:
        limits = self._limits
        account.exempt = exempt = limits.loopback_exempt and account.loopback
        account.sent = self.byte_bucket(0 if exempt else limits.send_bytes_per_s_per_source)
        account.rooms = self.room_bucket(0 if exempt else limits.rooms_per_minute_per_source)

    def close(self, account: Account) -> None:
        """A connection of this account is gone."""
        account.connections -= 1
        if account.connections:
            return
        assert not account.members
        assert not account.guests
        assert not account.joins
        self._idle[account.source] = None
        if not self._forget(account.source, self._clock()) and len(self._idle) > IDLE_ACCOUNTS_MAX:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._by_source[oldest]

    def sweep(self) -> None:
        """Forget whose buckets are full again. Called about once a second."""
        now = self._clock()
        for source in list(self._idle):
            self._forget(source, now)

    def count_joins(self, account: Account, change: int) -> None:
        """A connection of this account follows so many more logs."""
        account.joins += change
        self.joins += change

    def byte_bucket(self, bytes_per_s: int) -> TokenBucket | None:
        """Return a bucket for bytes that are sent; None for a rate of 0."""
        if not bytes_per_s:
            return None
        return TokenBucket(bytes_per_s, bytes_per_s * BURST_S, self._clock())

    def room_bucket(self, rooms_per_minute: int) -> TokenBucket | None:
        """Return a bucket for rooms that are begun; None for a rate of 0."""
        if not rooms_per_minute:
            return None
        return TokenBucket(rooms_per_minute / MINUTE_S, rooms_per_minute, self._clock())

    def __len__(self) -> int:
        return len(self._by_source)

    def _forget(self, source: str, now: float) -> bool:
        account = self._by_source[source]
        for bucket in (account.sent, account.rooms):
            if bucket is not None and not bucket.full(now):
                return False
        del self._idle[source], self._by_source[source]
        return True
