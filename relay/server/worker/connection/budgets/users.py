"""Usage and limits of each user on one worker, over all of the user's connections.

Connections of an account are spread over the workers, and each worker counts separately. So the
total that an account may use is exact only up to a factor of the number of workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from relay.server.worker.connection.budgets.ledger import Ledger, Payer
from relay.server.worker.connection.budgets.token_bucket import (
    TokenBucket,
    of_bytes,
    of_rooms,
    of_work,
    token_bucket,
)

if TYPE_CHECKING:
    from relay.limit_settings import Limits

DAY_S: Final = 86_400.0
BEGUN_S: Final = 30.0
"""A room that is not stored after so long was refused. Most take milliseconds."""
BEGUN_MAX: Final = 1024
LOOKS: Final = 4


class RoomsBegun:
    """Rooms that an account is creating, until they are stored."""

    __slots__ = ("_at",)

    def __init__(self) -> None:
        """Create without rooms."""
        self._at: dict[str, float] = {}
        """When each was begun; the one that was looked at last is the last one."""

    def add(self, log: str, now: float) -> None:
        """The creation of a room begins."""
        self._at.pop(log, None)
        self._at[log] = now
        if len(self._at) > BEGUN_MAX:
            del self._at[next(iter(self._at))]

    def count(self, stored: Callable[[str], bool], now: float) -> int:
        """Return how many are not known to be ``stored``, or refused.

        A look at a room has its cost, and a client may ask with each message: so a few are looked
        at each time, in turn.
        """
        for log in list(itertools.islice(self._at, LOOKS)):
            at = self._at.pop(log)
            if now - at < BEGUN_S and not stored(log):
                self._at[log] = at
        return len(self._at)


class User(Payer):
    """One account. Buckets are created when something is spent: most connected users only read."""

    __slots__ = ("_day", "_limits", "_rooms", "_sent", "_work", "rooms_begun")

    def __init__(self, name: str, limits: Limits) -> None:
        """Create without usage."""
        super().__init__(name)
        self.rooms_begun = RoomsBegun()
        self.bound(limits)

    def bound(self, limits: Limits) -> None:
        """Apply new limits. Previous spending is forgotten."""
        self._limits = limits
        self._sent: TokenBucket | None = None
        self._day: TokenBucket | None = None
        self._rooms: TokenBucket | None = None
        self._work: TokenBucket | None = None

    def sent(self, now: float) -> TokenBucket | None:
        """Return the bucket for bytes sent to logs; None: no limit."""
        if self._sent is None:
            self._sent = of_bytes(self._limits.send_bytes_per_s_per_user, now)
        return self._sent

    def day(self, now: float) -> TokenBucket | None:
        """Return the bucket for bytes sent to logs in a day; None: no limit."""
        if self._day is None:
            a_day = self._limits.send_mib_per_day_per_user << 20
            self._day = token_bucket(a_day / DAY_S, a_day, now)
        return self._day

    def rooms(self, now: float) -> TokenBucket | None:
        """Return the bucket for created rooms; None: no limit."""
        if self._rooms is None:
            self._rooms = of_rooms(self._limits.rooms_per_minute_per_user, now)
        return self._rooms

    def work(self, now: float) -> TokenBucket | None:
        """Return the bucket for the cost of requests; None: no limit."""
        if self._work is None:
            self._work = of_work(self._limits.work_per_s_per_user, now)
        return self._work

    def buckets(self) -> Iterable[TokenBucket | None]:
        """See ``Payer``."""
        return self._sent, self._day, self._rooms, self._work


class Users(Ledger[User]):
    """The users of a worker. Guests have no account and are charged by source."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(self._made, clock)
        self._limits = limits

    def rebound(self, limits: Limits) -> None:
        """Apply new limits to every user. Previous spending is forgotten."""
        self._limits = limits
        for user in self.payers():
            user.bound(limits)

    def is_full(self, name: str) -> bool:
        """Return True if an account has the maximum number of connections on this worker."""
        most, user = self._limits.connections_per_user, self.get(name)
        return bool(most) and user is not None and user.connections >= most

    def _made(self, name: str) -> User:
        return User(name, self._limits)
