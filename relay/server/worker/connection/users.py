"""Usage and limits of each user on one worker, over all their connections.

Connections of an account are spread over the workers, and each worker counts for itself: what an
account may use of all of them is exact to a factor of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from relay.server.worker.connection.ledger import Ledger, Payer
from relay.server.worker.connection.token_bucket import (
    TokenBucket,
    of_bytes,
    of_rooms,
    of_work,
    token_bucket,
)

if TYPE_CHECKING:
    from relay.limit_settings import Limits

DAY_S: Final = 86_400.0


class User(Payer):
    """One account. Its buckets are made when something is spent: most who are here only read."""

    __slots__ = ("_day", "_limits", "_rooms", "_sent", "_work")

    def __init__(self, name: str, limits: Limits) -> None:
        """Begin with nothing in use."""
        super().__init__(name)
        self.bound(limits)

    def bound(self, limits: Limits) -> None:
        """Hold it to these limits; what it has spent is forgotten."""
        self._limits = limits
        self._sent: TokenBucket | None = None
        self._day: TokenBucket | None = None
        self._rooms: TokenBucket | None = None
        self._work: TokenBucket | None = None

    def sent(self, now: float) -> TokenBucket | None:
        """Return the bucket for bytes that are sent to logs; None: they are not bounded."""
        if self._sent is None:
            self._sent = of_bytes(self._limits.send_bytes_per_s_per_user, now)
        return self._sent

    def day(self, now: float) -> TokenBucket | None:
        """Likewise, over a day."""
        if self._day is None:
            a_day = self._limits.send_mib_per_day_per_user << 20
            self._day = token_bucket(a_day / DAY_S, a_day, now)
        return self._day

    def rooms(self, now: float) -> TokenBucket | None:
        """Return the bucket for rooms that are begun; None: they are not bounded."""
        if self._rooms is None:
            self._rooms = of_rooms(self._limits.rooms_per_minute_per_user, now)
        return self._rooms

    def work(self, now: float) -> TokenBucket | None:
        """Return the bucket for what requests cost; None: it is not bounded."""
        if self._work is None:
            self._work = of_work(self._limits.work_per_s_per_user, now)
        return self._work

    def buckets(self) -> Iterable[TokenBucket | None]:
        """See ``Payer``."""
        return self._sent, self._day, self._rooms, self._work


class Users(Ledger[User]):
    """See the module's docstring. Guests have no account: they pay as their source."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(self._made, clock)
        self._limits = limits

    def rebound(self, limits: Limits) -> None:
        """Hold everybody to other limits from now on; what they have spent is forgotten."""
        self._limits = limits
        for user in self.payers():
            user.bound(limits)

    def is_full(self, name: str) -> bool:
        """Tell whether an account has as many connections here as it may."""
        most, user = self._limits.connections_per_user, self.get(name)
        return bool(most) and user is not None and user.connections >= most

    def _made(self, name: str) -> User:
        return User(name, self._limits)
