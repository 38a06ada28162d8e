"""What the sessions of one worker share: its dependencies, made once by ``process.main``."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from relay.chat.partition import PARTITIONS
from relay.server.worker.connection.counts import Counts
from relay.server.worker.connection.spending import Spender, Spending, spending
from relay.store.errors import StoreError

if TYPE_CHECKING:
    from relay.limit_settings import Limits
    from relay.server.worker.connection.admission import Admission
    from relay.server.worker.connection.announcement import Announcement
    from relay.server.worker.connection.endings import Endings
    from relay.server.worker.connection.received import ReceivedBytes
    from relay.server.worker.connection.schedule import Schedule
    from relay.server.worker.connection.source_usage import Source, Sources
    from relay.server.worker.connection.users import User, Users
    from relay.server.worker.connection.waste import Waste
    from relay.server.worker.delivery.outbox import Flusher
    from relay.server.worker.delivery.stalled import StalledConnections
    from relay.server.worker.member.claims import Claims
    from relay.server.worker.member.damage import DamageReports
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.queries import PendingQueries
    from relay.server.worker.member.reply import Reply
    from relay.server.worker.member.subscriptions import Following
    from relay.server.worker.refusals import Refusals
    from relay.server.worker.wakeup import Wakeup
    from relay.store.log import Reader
    from relay.store.search.finder import Found
    from relay.wire.tickets import TicketKeys
    from relay.wire.timing import Timing

LOGIN_S: Final = 20.0
"""From the end of the handshake to WELCOME (docs/protocol.md, "Deadlines")."""
OVERLOADED_RETRY_S: Final = 5
"""When a client that was closed with OVERLOADED, or LOGIN_UNAVAILABLE, connects again, at the
earliest."""


class Searching(Protocol):
    """What finds messages by their words (``process.searches``)."""

    @property
    def on(self) -> bool:
        """False: there is no index."""

    def find(
        self, log: str, match: str, after: int, before: int, count: int
    ) -> Reply[Found | None] | None:
        """See ``store.search.finder``; the reply's None: it failed. None: too much is asked."""


class Unwrap(Protocol):
    """The key agent's service: a wrapped secret in, the secret out."""

    def unwrap(self, ciphertext: bytes, source: str) -> Awaitable[bytes]:
        """Return, once it is awaited, the 32-byte secret: real, or random for a bad ciphertext."""


@dataclass(slots=True)
class ConnectionBudgets:
    """What the connections of a worker may cost, together and by source."""

    limits: Limits
    sources: Sources
    users: Users
    admission: Admission
    received: ReceivedBytes
    refusals: Refusals
    waste: Waste

    def rebound(self, limits: Limits) -> None:
        """Keep to other limits from now on; sessions have to be told by themselves."""
        self.limits = limits
        self.sources.rebound(limits)
        self.users.rebound(limits)
        self.admission.rebound(limits)
        self.waste.rebound(limits)
        self.received.bytes_max = limits.received_mib << 20


@dataclass(frozen=True, slots=True)
class ConnectionServices:
    """The worker, as its sessions see it."""

    clock: Callable[[], float]
    """Monotonic seconds, moving within a turn (uvloop's own ``time`` has whole ms)."""
    wall_clock_ns: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    agent: Unwrap
    spki: bytes
    spki_hash: bytes
    """SHA-256 of it: what logins are bound to."""
    hello_ext: bytes
    """Of ServerHello: the server's id, if its key is not the first one."""
    announcement: Announcement
    """Of the key that will follow."""
    tickets: TicketKeys | None
    """What opens and seals tickets; None: there are none."""
    modulus_bytes: int
    """Of the key in ``spki``."""
    durability: int
    """What commits survive: a ``wire.codes.Survives``."""
    guests: bool
    """Whether clients without an account may log in."""
    agent_name: str
    """What the server calls itself in WELCOME."""
    timing: Timing
    login_s: float
    """See ``LOGIN_S``."""
    overloaded_retry_s: int
    """See ``OVERLOADED_RETRY_S``."""
    wakeup: Wakeup
    schedule: Schedule
    flusher: Flusher
    stalled: StalledConnections
    following: Following
    forward: Forward
    claims: Claims
    queries: PendingQueries
    damage: DamageReports
    reader_of: Callable[[str], Reader]
    """By the name of a log."""
    reader_at: Callable[[int], Reader]
    """By the number of a partition."""
    first_invitation: bytes
    """The hash of the one that lies in the data directory; empty: none."""
    budgets: ConnectionBudgets
    endings: Endings
    searching: Searching | None
    """None: nobody finds anything."""
    generation: int
    """Of the worker: begins the id of each connection."""
    counts: Counts = field(default_factory=Counts)

    def spending(self, source: Source, user: User | None, spender: Spender) -> Spending | None:
        """Return what a connection may spend by the limits of now: see ``spending``."""
        bounds = self.budgets.limits
        return spending(source, user, bounds, self.log_exists, spender)

    def rooms_owned(self, handle: str, root: bytes) -> int:
        """Return how many rooms an account owns. What cannot be read counts as none."""
        count = 0
        for index in range(PARTITIONS):
            with contextlib.suppress(StoreError):
                count += self.reader_at(index).owned(handle, root)
        return count

    def log_exists(self, log: str) -> bool:
        """Tell whether a log has been begun. One that cannot be read may have been."""
        feed = self.following.feeds.by_log.get(log)
        if feed is not None and feed.known and feed.seq:
            return True
        try:
            return self.reader_of(log).head(log).seq > 0
        except StoreError:
            return True
