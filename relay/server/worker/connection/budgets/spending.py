"""The remaining budget of one connection: for sends, new rooms and requests. No I/O.

Bytes and rooms are charged to a bucket of the connection, one of its account and one of its source;
the cost of requests is charged to the latter two. A room is created by a request, or by the first
message to a log that does not exist. Whether a log exists is looked up once per connection and log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from relay import limits
from relay.server.metrics import Budget
from relay.server.worker.connection.budgets.token_bucket import (
    INFINITE,
    TokenBucket,
    of_bytes,
    of_rooms,
)

if TYPE_CHECKING:
    from relay.chat.rooms.rights import Actor
    from relay.limit_settings import Limits
    from relay.server.worker.connection.budgets.source_usage import Source
    from relay.server.worker.connection.budgets.users import User

MESSAGE_BYTES: Final = 200
"""Cost of a message in addition to its body."""
LOOKUP_UNITS: Final = 1
"""Cost of looking up whether a log exists."""
ONE_BY_ONE: Final = 16
"""An account that may own so few rooms more, or fewer, creates them one after the other. Other
workers do not know of those that are being created here: so all together exceed the limit by one
room for each of them at most."""
ENOUGH_S: Final = 0.05
"""A refused client retries when this many seconds' worth of tokens is available, not just the next
byte: refusing takes work, too. With ten times as much, all connections of a source would retry at
once, and others would wait for everything that they may then send."""


class Refusal(NamedTuple):
    """Why something cannot be paid for."""

    budget: Budget
    wait_ms: int
    """When to retry."""
    text: str
    most: int = 0
    """If not 0, a retry does not help: the limit that was reached."""


class Rate(NamedTuple):
    """One bucket, and the answer when it is empty."""

    budget: Budget
    bucket: TokenBucket
    text: str


class Spender(Protocol):
    """The session whose budget this is."""

    @property
    def actor(self) -> Actor:
        """Its account."""


class Rooms(Protocol):
    """The rooms of the server, as far as they are stored."""

    def log_exists(self, log: str) -> bool:
        """Return True if a log has been created."""

    def rooms_owned(self, actor: Actor) -> int:
        """Return how many rooms an account owns."""

    def owns_room(self, log: str, actor: Actor) -> bool:
        """Return True if an account owns a room."""


class Spending:
    """The budget of one connection.

    Nothing is created for things that a connection does not do: most connections only read.
    """

    __slots__ = (
        "_known", "_limits", "_own_rooms", "_rooms_stored", "_sent", "_source", "_spender",
        "_user",
    )  # fmt: skip

    def __init__(
        self,
        source: Source,
        user: User | None,
        limits: Limits,
        rooms: Rooms,
        spender: Spender,
    ) -> None:
        """Create a budget. See ``spending``."""
        self._source = source
        self._user = user
        self._limits = limits
        self._rooms_stored = rooms
        self._spender = spender
        self._sent: list[Rate] | None = None
        """Buckets for bytes; created with the first send."""
        self._own_rooms: TokenBucket | None = None
        """The connection's own bucket for rooms; created with the first room."""
        self._known: dict[str, None] | None = None
        """Logs that exist, or whose creation is paid for."""

    @property
    def source(self) -> str:
        """The name of the source, for the log."""
        return self._source.name

    def refusal(self, log: str, body_bytes: int, now: float) -> Refusal | None:
        """Pay for a message. Return the refusal, or None if it is paid for."""
        refused = self.empty(now)
        if refused is not None:
            return refused
        sent = self._sent
        assert sent is not None
        if self._known is None or log not in self._known:
            refused = self._look_up(log, now)
            if refused is not None:
                return refused
        _take(sent, body_bytes + MESSAGE_BYTES, now)
        return None

    def credit(self, log: str, now: float) -> float:
        """Return the tokens for messages to a log, for the caller to spend by ``charge``.

        As long as one is left, any message may be sent. Less than 1: ask ``refusal``.
        """
        sent = self._sent
        if sent is None or self._known is None or log not in self._known:
            return 0.0
        return min([rate.bucket.level(now) for rate in sent], default=INFINITE)

    def charge(self, count: int, now: float) -> None:
        """Take tokens for messages that ``credit`` allowed."""
        assert self._sent is not None
        _take(self._sent, count, now)

    def room(self, log: str, now: float) -> Refusal | None:
        """Pay for creating a room. Return the refusal, or None if it is paid for.

        It costs the same if the name existed before: each creation begins an epoch, kept for ever.
        """
        return self.empty(now) or self._begin(log, now)

    def empty(self, now: float) -> Refusal | None:
        """Return the refusal if no message can be accepted now, whatever its size, or None."""
        sent = self._sent
        if sent is None:
            sent = self._sent = self._bytes(now)
        return _empty(sent, now)

    def work(self, units: int, now: float) -> Refusal | None:
        """Pay for a request of this cost. Return the refusal, or None if it is paid for."""
        work = self._work(now)
        refused = _empty(work, now)
        if refused is None:
            _take(work, units, now)
        return refused

    def account(self, now: float) -> Refusal | None:
        """Pay for registering a name. Return the refusal, or None if it is paid for."""
        bucket = self._source.accounts(now)
        if bucket is None:
            return None
        rates = [Rate(Budget.ACCOUNTS_PER_SOURCE, bucket, "this address registers too many names")]
        refused = _empty(rates, now)
        if refused is None:
            _take(rates, 1, now)
        return refused

    def owe(self, units: int, now: float) -> None:
        """Charge the actual cost of a request afterwards. It delays the next request."""
        _take(self._work(now), units, now)

    def _look_up(self, log: str, now: float) -> Refusal | None:
        """Check whether a log exists and pay for the lookup, and for creating the log if needed."""
        refused = self.work(LOOKUP_UNITS, now)
        if refused is not None:
            return refused
        if not self._rooms_stored.log_exists(log):
            return self._begin(log, now)
        self._knows(log)
        return None

    def _begin(self, log: str, now: float) -> Refusal | None:
        rooms = self._rooms(now)
        refused = _empty(rooms, now) or self._too_many(now)
        if refused is not None:
            return refused
        _take(rooms, 1, now)
        if self._user is not None and self._limits.rooms_per_user:
            self._user.rooms_begun.add(log, now)
        self._knows(log)
        return None

    def _knows(self, log: str) -> None:
        if self._known is None or len(self._known) >= limits.LOGS_PER_CONNECTION_MAX:
            self._known = {}
        self._known[log] = None

    def _too_many(self, now: float) -> Refusal | None:
        user, most = self._user, self._limits.rooms_per_user
        if user is None or not most:
            return None
        actor, stored = self._spender.actor, self._rooms_stored
        # Before the stored ones are counted: what is stored in between must count once or twice.
        begun = user.rooms_begun.count(lambda log: stored.owns_room(log, actor), now)
        owned = stored.rooms_owned(actor)
        if owned >= most:
            return Refusal(Budget.ROOMS_OWNED, 0, f"the account owns {most} rooms", most)
        if begun and owned + begun >= most - ONE_BY_ONE:
            return Refusal(Budget.ROOMS_OWNED, limits.RETRY_MS, "other rooms are being created")
        return None

    # --- the limits -----------------------------------------------------------------------------
    def _bytes(self, now: float) -> list[Rate]:
        own = of_bytes(self._limits.send_bytes_per_s, now)
        sent = [
            (Budget.SEND_BYTES, own, "this connection sends"),
            (Budget.SEND_BYTES_PER_SOURCE, self._source.sent(now), "this address sends"),
        ]
        if self._user is not None:
            sent += [
                (Budget.SEND_BYTES_PER_USER, self._user.sent(now), "this account sends"),
                (Budget.SEND_DAY_PER_USER, self._user.day(now), "this account sends, over a day,"),
            ]
        return _rates(sent, "too much")

    def _rooms(self, now: float) -> list[Rate]:
        if self._own_rooms is None:
            self._own_rooms = of_rooms(self._limits.rooms_per_minute, now)
        rooms = [
            (Budget.ROOMS, self._own_rooms, "this connection begins"),
            (Budget.ROOMS_PER_SOURCE, self._source.rooms(now), "this address begins"),
        ]
        if self._user is not None:
            rooms.append((Budget.ROOMS_PER_USER, self._user.rooms(now), "this account begins"))
        return _rates(rooms, "too many rooms")

    def _work(self, now: float) -> list[Rate]:
        work = [(Budget.WORK_PER_SOURCE, self._source.work(now), "this address asks for")]
        if self._user is not None:
            work.append((Budget.WORK_PER_USER, self._user.work(now), "this account asks for"))
        return _rates(work, "too much")


def spending(
    source: Source,
    user: User | None,
    limits: Limits,
    rooms: Rooms,
    spender: Spender,
) -> Spending | None:
    """Return the budget of a connection; None if nothing is limited.

    Args:
        source: of the connection.
        user: of its account; None: it has none (yet).
        limits: the settings.
        rooms: those that are stored.
        spender: the session.
    """
    if source.exempt:
        return None
    bounded = (
        limits.send_bytes_per_s
        or limits.send_bytes_per_s_per_source
        or limits.rooms_per_minute
        or limits.rooms_per_minute_per_source
        or limits.work_per_s_per_source
        or limits.accounts_per_hour_per_source
    )
    if user is not None:
        bounded = (
            bounded
            or limits.send_bytes_per_s_per_user
            or limits.send_mib_per_day_per_user
            or limits.rooms_per_minute_per_user
            or limits.work_per_s_per_user
            or limits.rooms_per_user
        )
    return Spending(source, user, limits, rooms, spender) if bounded else None


def _rates(bounds: list[tuple[Budget, TokenBucket | None, str]], what: str) -> list[Rate]:
    return [
        Rate(budget, bucket, f"{who} {what}")
        for budget, bucket, who in bounds
        if bucket is not None
    ]


def _empty(rates: list[Rate], now: float) -> Refusal | None:
    """Return the refusal of the first empty bucket."""
    for budget, bucket, text in rates:
        if bucket.wait_s(now):
            wait_s = bucket.wait_s(now, ENOUGH_S)
            return Refusal(budget, min(int(wait_s * 1000) + 1, limits.RETRY_MS_MAX), text)
    return None


def _take(rates: list[Rate], count: int, now: float) -> None:
    for rate in rates:
        rate.bucket.take(count, now)
