"""What the connections of each account have in use, on one worker, from wherever they come.

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
    """One account."""

    __slots__ = ("day", "rooms", "sent", "work")

    def __init__(self, name: str) -> None:
        """Begin with nothing in use, and without bounds (None)."""
        super().__init__(name)
        self.sent: TokenBucket | None = None
        """For bytes that are sent to logs."""
        self.day: TokenBucket | None = None
        """Likewise, over a day."""
        self.rooms: TokenBucket | None = None
        """For rooms that are begun."""
        self.work: TokenBucket | None = None
        """For what requests cost."""

    def buckets(self) -> Iterable[TokenBucket | None]:
        """See ``Payer``."""
        return self.sent, self.day, self.rooms, self.work


class Users(Ledger[User]):
    """See the module's docstring. Guests have no account: they pay as their source."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(self._made, clock)
        self._limits = limits

    def rebound(self, limits: Limits) -> None:
        """Hold everybody to other limits from now on; what they have spent is forgotten."""
        self._limits = limits
        for user in self.payers():
            self._bound(user)

    def is_full(self, name: str) -> bool:
        """Tell whether an account has as many connections here as it may."""
        most, user = self._limits.connections_per_user, self.get(name)
        return bool(most) and user is not None and user.connections >= most

    def _made(self, name: str) -> User:
        user = User(name)
        self._bound(user)
        return user

    def _bound(self, user: User) -> None:
        limits, now = self._limits, self._clock()
        a_day = limits.send_mib_per_day_per_user << 20
        user.sent = of_bytes(limits.send_bytes_per_s_per_user, now)
        user.day = token_bucket(a_day / DAY_S, a_day, now)
        user.rooms = of_rooms(limits.rooms_per_minute_per_user, now)
        user.work = of_work(limits.work_per_s_per_user, now)
