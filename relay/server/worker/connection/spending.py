"""What one connection may still send, begin and ask for. Decides alone.

Bytes and rooms have a bucket of the connection, one of its account and one of its source; what
requests cost has the latter two. A room is begun by the first message to a log that does not exist:
whether it does is looked up once for each log that a connection sends to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from relay import limits
from relay.server.metrics import Budget
from relay.server.worker.connection.token_bucket import TokenBucket, of_bytes, of_rooms

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.accounts import Account
    from relay.server.worker.connection.users import User

MESSAGE_BYTES: Final = 200
"""What a message costs besides its body."""
LOOKUP_UNITS: Final = 1
"""What it costs to look whether a log exists."""
WAIT_MS_MAX: Final = 60_000


class Refusal(NamedTuple):
    """Why not."""

    budget: Budget
    wait_ms: int
    """When to try again."""
    text: str
    most: int = 0
    """Trying again does not help: this is the bound that is reached."""


class Rate(NamedTuple):
    """One bucket, and what is answered when it is empty."""

    budget: Budget
    bucket: TokenBucket
    text: str


class Spending:
    """See the module's docstring."""

    __slots__ = ("_exists", "_known", "_owned", "_owned_max", "_rooms", "_sent", "_work", "source")

    def __init__(
        self,
        source: str,
        sent: list[Rate],
        rooms: list[Rate],
        work: list[Rate],
        owned_max: int,
        exists: Callable[[str], bool],
        owned: Callable[[], int],
    ) -> None:
        """Begin.

        Args:
            source: whose it is, for the log.
            sent: bounds of bytes.
            rooms: bounds of rooms that are begun.
            work: bounds of what requests cost.
            owned_max: rooms that the account may own; 0: no bound.
            exists: tells whether a log has been begun.
            owned: tells how many rooms the account owns.
        """
        self.source = source
        self._sent = sent
        self._rooms = rooms
        self._work = work
        self._owned_max = owned_max
        self._exists = exists
        self._owned = owned
        self._known: dict[str, None] = {}
        """Logs that exist, or whose beginning is paid for."""

    def refusal(self, log: str, body_bytes: int, now: float) -> Refusal | None:
        """Return why a message cannot be taken now; None: it can, and is paid for."""
        refused = _empty(self._sent, now)
        if refused is not None:
            return refused
        if log not in self._known:
            refused = _empty(self._work, now)
            if refused is not None:
                return refused
            _take(self._work, LOOKUP_UNITS, now)
            if not self._exists(log):
                refused = _empty(self._rooms, now) or self._too_many()
                if refused is not None:
                    return refused
                _take(self._rooms, 1, now)
            if len(self._known) >= limits.LOGS_PER_CONNECTION_MAX:
                self._known.clear()
            self._known[log] = None
        _take(self._sent, body_bytes + MESSAGE_BYTES, now)
        return None

    def work(self, units: int, now: float) -> Refusal | None:
        """Return why a request of this cost cannot be taken now; None: it can, and is paid for."""
        refused = _empty(self._work, now)
        if refused is None:
            _take(self._work, units, now)
        return refused

    def owe(self, units: int, now: float) -> None:
        """Charge what a request has turned out to cost: whoever asks next waits for it."""
        _take(self._work, units, now)

    def _too_many(self) -> Refusal | None:
        most = self._owned_max
        if not most or self._owned() < most:
            return None
        return Refusal(Budget.ROOMS_OWNED, 0, f"the account owns {most} rooms", most)


def spending(
    account: Account,
    user: User | None,
    limits: Limits,
    now: float,
    exists: Callable[[str], bool],
    owned: Callable[[], int],
) -> Spending | None:
    """Return what a connection may spend; None: nothing of it is bounded.

    Args:
        account: of its source.
        user: of its account; None: it has none (yet).
        limits: the settings.
        now: monotonic seconds.
        exists: see ``Spending``.
        owned: likewise.
    """
    if account.exempt:
        return None
    sent = [
        (Budget.SEND_BYTES, of_bytes(limits.send_bytes_per_s, now), "this connection sends"),
        (Budget.SEND_BYTES_PER_SOURCE, account.sent, "this address sends"),
    ]
    rooms = [
        (Budget.ROOMS, of_rooms(limits.rooms_per_minute, now), "this connection begins"),
        (Budget.ROOMS_PER_SOURCE, account.rooms, "this address begins"),
    ]
    work = [(Budget.WORK_PER_SOURCE, account.work, "this address asks for")]
    if user is not None:
        sent.append((Budget.SEND_BYTES_PER_USER, user.sent, "this account sends"))
        sent.append((Budget.SEND_DAY_PER_USER, user.day, "this account sends, over a day,"))
        rooms.append((Budget.ROOMS_PER_USER, user.rooms, "this account begins"))
        work.append((Budget.WORK_PER_USER, user.work, "this account asks for"))
    owned_max = limits.rooms_per_user if user is not None else 0
    bounds = _rates(sent, "too much"), _rates(rooms, "too many rooms"), _rates(work, "too much")
    if not any(bounds) and not owned_max:
        return None
    return Spending(account.source, *bounds, owned_max, exists, owned)


def _rates(bounds: list[tuple[Budget, TokenBucket | None, str]], what: str) -> list[Rate]:
    return [
        Rate(budget, bucket, f"{who} {what}")
        for budget, bucket, who in bounds
        if bucket is not None
    ]


def _empty(rates: list[Rate], now: float) -> Refusal | None:
    """Return the refusal of the first bucket that is empty."""
    for budget, bucket, text in rates:
        wait_s = bucket.wait_s(now)
        if wait_s:
            return Refusal(budget, min(int(wait_s * 1000) + 1, WAIT_MS_MAX), text)
    return None


def _take(rates: list[Rate], count: int, now: float) -> None:
    for rate in rates:
        rate.bucket.take(count, now)
