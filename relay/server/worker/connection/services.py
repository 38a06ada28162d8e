"""What the sessions of one worker share: its dependencies, created by ``process.building``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from relay.chat.partition import PARTITIONS
from relay.chat.rooms.events import Role
from relay.server.worker.connection.budgets.spending import Spender, Spending, spending
from relay.server.worker.connection.counts import Counts
from relay.server.worker.stored import stored_room
from relay.store.errors import StoreError

if TYPE_CHECKING:
    from relay.chat.rooms.rights import Actor
    from relay.limit_settings import Limits
    from relay.server.agent.answer import Answer
    from relay.server.worker.connection.announcement import Announcement
    from relay.server.worker.connection.budgets.admission import Admission
    from relay.server.worker.connection.budgets.source_usage import Source, Sources
    from relay.server.worker.connection.budgets.users import User, Users
    from relay.server.worker.connection.budgets.waste import Waste
    from relay.server.worker.connection.endings import Endings
    from relay.server.worker.connection.received import ReceivedBytes
    from relay.server.worker.connection.schedule import Schedule
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
"""Time from the end of the handshake to WELCOME (docs/protocol.md, "Deadlines")."""
OVERLOADED_RETRY_S: Final = 5
"""Minimum delay before a client reconnects after OVERLOADED or LOGIN_UNAVAILABLE."""


class Searching(Protocol):
    """Finds messages by their words (``process.storage.searches``)."""

    @property
    def on(self) -> bool:
        """False if there is no index."""

    def find(
        self, log: str, match: str, after: int, before: int, count: int
    ) -> Reply[Found | None] | None:
        """See ``store.search.finder``. The reply's value is None if the search failed.

        Returns None if too many searches are waiting.
        """


class Unwrap(Protocol):
    """The key agent's service: decrypts a wrapped secret."""

    def unwrap(self, ciphertext: bytes, source: str) -> Answer:
        """Return the 32-byte secret, once it is there: random if the ciphertext is invalid."""


@dataclass(slots=True)
class ConnectionBudgets:
    """The budgets for the connections of a worker, in total and by source."""

    limits: Limits
    sources: Sources
    users: Users
    admission: Admission
    received: ReceivedBytes
    refusals: Refusals
    waste: Waste

    def rebound(self, limits: Limits) -> None:
        """Apply new limits. Sessions are updated separately."""
        self.limits = limits
        self.sources.rebound(limits)
        self.users.rebound(limits)
        self.admission.rebound(limits)
        self.waste.rebound(limits)
        self.received.bytes_max = limits.received_mib << 20


@dataclass(frozen=True, slots=True)
class ConnectionServices:
    """What a worker provides to its sessions."""

    clock: Callable[[], float]
    """Monotonic seconds that advance within a turn (uvloop's own ``time`` has whole milliseconds).
    """
    wall_clock_ns: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    agent: Unwrap
    spki: bytes
    spki_hash: bytes
    """SHA-256 of ``spki``, which logins are bound to."""
    hello_ext: bytes
    """The extension of ServerHello: the server's id, if its key is not the first one."""
    announcement: Announcement
    """Of the next key."""
    tickets: TicketKeys | None
    """Seals and opens tickets; None if there are none."""
    modulus_bytes: int
    """Of the key in ``spki``."""
    durability: int
    """What commits survive: a ``wire.codes.Survives``."""
    guests: bool
    """Whether clients without an account may log in."""
    agent_name: str
    """The server's name and version in WELCOME."""
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
    """Returns the reader for a log, by its name."""
    reader_at: Callable[[int], Reader]
    """Returns the reader for a partition, by its number."""
    first_invitation: bytes
    """Hash of the invitation in the data directory; empty if there is none."""
    budgets: ConnectionBudgets
    endings: Endings
    searching: Searching | None
    """None: search is not available."""
    generation: int
    """Generation of the worker: the prefix of connection ids."""
    counts: Counts = field(default_factory=Counts)

    def spending(self, source: Source, user: User | None, spender: Spender) -> Spending | None:
        """Return the budget of a connection under the current limits: see ``spending``."""
        bounds = self.budgets.limits
        return spending(source, user, bounds, self, spender)

    def rooms_owned(self, actor: Actor) -> int:
        """Return how many rooms an account owns. Rooms that cannot be read are not counted."""
        count = 0
        for index in range(PARTITIONS):
            with contextlib.suppress(StoreError):
                count += self.reader_at(index).owned(actor.handle, actor.root)
        return count

    def owns_room(self, log: str, actor: Actor) -> bool:
        """Return True if an account owns a room, as stored."""
        try:
            room = stored_room(log, self.reader_of(log).state(log))
        except StoreError:
            return False
        person = room.people.get(actor.handle)
        return (
            person is not None
            and person.root == actor.root
            and person.role is Role.OWNER
            and person.lasting
        )

    def log_exists(self, log: str) -> bool:
        """Return True if a log has been created, or if that cannot be read."""
        feed = self.following.feeds.by_log.get(log)
        if feed is not None and feed.known and feed.seq:
            return True
        try:
            return self.reader_of(log).head(log).seq > 0
        except StoreError:
            return True
