"""What one connection may still send to logs: bytes, and rooms that it begins. Decides alone.

Both have a bucket of the connection and one of its source. A room is begun by the first message to
a log that does not exist: whether it does is looked up once for each log that a connection sends
to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from relay import limits
from relay.server.metrics import Budget

if TYPE_CHECKING:
    from relay.server.worker.connection.accounts import Account, Accounts
    from relay.server.worker.connection.token_bucket import TokenBucket
    from relay.settings import Limits

MESSAGE_BYTES: Final = 200
"""What a message costs besides its body."""
WAIT_MS_MAX: Final = 60_000


class Refusal(NamedTuple):
    """Why not now."""

    budget: Budget
    wait_ms: int
    """When to try again."""
    text: str


class Spending:
    """See the module's docstring."""

    __slots__ = ("_account", "_exists", "_known", "_rooms", "_sent")

    def __init__(
        self,
        account: Account,
        sent: TokenBucket | None,
        rooms: TokenBucket | None,
        exists: Callable[[str], bool],
    ) -> None:
        """Begin with full buckets of its own.

        Args:
            account: of its source.
            sent: its own bucket for bytes; None: no bound.
            rooms: its own bucket for rooms; None: no bound.
            exists: tells whether a log has been begun.
        """
        self._account = account
        self._sent = sent
        self._rooms = rooms
        self._exists = exists
        self._known: dict[str, None] = {}
        """Logs that exist, or whose beginning is paid for."""

    @property
    def source(self) -> str:
        """Whose it is."""
        return self._account.source

    def refusal(self, log: str, body_bytes: int, now: float) -> Refusal | None:
        """Return why a message cannot be taken now; None: it can, and is paid for."""
        account = self._account
        wait_s = _wait_s(self._sent, now)
        if wait_s:
            return _refusal(Budget.SEND_BYTES, wait_s, "this connection sends too much")
        wait_s = _wait_s(account.sent, now)
        if wait_s:
            return _refusal(Budget.SEND_BYTES_PER_SOURCE, wait_s, "this address sends too much")
        if log not in self._known:
            begins = not self._exists(log)
            if begins:
                wait_s = _wait_s(self._rooms, now)
                if wait_s:
                    text = "this connection begins too many rooms"
                    return _refusal(Budget.ROOMS, wait_s, text)
                wait_s = _wait_s(account.rooms, now)
                if wait_s:
                    text = "this address begins too many rooms"
                    return _refusal(Budget.ROOMS_PER_SOURCE, wait_s, text)
                _take(self._rooms, 1, now)
                _take(account.rooms, 1, now)
            if len(self._known) >= limits.LOGS_PER_CONNECTION_MAX:
                self._known.clear()
            self._known[log] = None
        _take(self._sent, body_bytes + MESSAGE_BYTES, now)
        _take(account.sent, body_bytes + MESSAGE_BYTES, now)
        return None


def spending(
    account: Account, accounts: Accounts, limits: Limits, exists: Callable[[str], bool]
) -> Spending | None:
    """Return what a new connection of a source may spend; None: nothing of it is bounded."""
    if account.exempt:
        return None
    sent = accounts.byte_bucket(limits.send_bytes_per_s)
    rooms = accounts.room_bucket(limits.rooms_per_minute)
    if sent is rooms is account.sent is account.rooms is None:
        return None
    return Spending(account, sent, rooms, exists)


def _wait_s(bucket: TokenBucket | None, now: float) -> float:
    return 0.0 if bucket is None else bucket.wait_s(now)


def _take(bucket: TokenBucket | None, count: int, now: float) -> None:
    if bucket is not None:
        bucket.take(count, now)


def _refusal(budget: Budget, wait_s: float, text: str) -> Refusal:
    return Refusal(budget, min(int(wait_s * 1000) + 1, WAIT_MS_MAX), text)
