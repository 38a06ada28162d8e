"""The logs that are followed on this worker, their followers, and the messages of their homes.

``Feed.head`` is H of invariant "One seam": the last entry that was distributed here; no client is
shown anything above it. A subscription that has everything up to H may enter the live set in the
same turn and misses nothing: later entries are distributed to it.

``Feed.received`` is the last entry received from the home. It is ahead of H while a log pauses. An
entry that does not continue it (a batch was dropped, or the home was replaced) marks the feed for
repair: the missing entries are read from the store and distributed as ordinary batches (invariant
"No silent tail").
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.bus.messages import Batch as BusBatch
from relay.bus.messages import NotFollowed, Subscribe
from relay.chat.entries import NO_EPOCH, Head
from relay.chat.names import is_inbox
from relay.chat.partition import partition_of
from relay.chat.rooms import events as room_events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Kind
from relay.chat.rooms.refusal import Reason, Refused
from relay.chat.rooms.rights import Right, refusal
from relay.chat.rooms.state import Room
from relay.errors import EnvelopeError
from relay.server.worker.delivery.batch import RunningBatch
from relay.server.worker.member.reply import Reply
from relay.server.worker.stored import damage_of, stored_entry, stored_room, unreadable
from relay.store.errors import LogDamaged
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.packing import is_control, unpack_entry

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Event
    from relay.server.scoreboard import Erasures
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.server.worker.delivery.outbox import Outbox
    from relay.server.worker.member.pages import Pages
    from relay.server.worker.member.routes import Routes
    from relay.server.worker.member.subscription import Subscriber, Subscription
    from relay.store.log import Reader

UNREADABLE: Final = Room(kind=Kind.PRIVATE)
"""Used instead of a damaged state: it is unknown who may read, so nobody may."""
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""
log = logging.getLogger("relay.worker")


class Feed:
    """One log as it is followed on this worker."""

    __slots__ = (
        "ahead", "awaiting", "begun", "changed", "continued", "damaged", "epoch", "events", "here",
        "joining", "known", "live", "log", "paused_until", "received", "refused", "repair_to",
        "room", "running", "seq", "subscriptions", "swept", "swept_bytes", "torn",
    )  # fmt: skip

    def __init__(self, log: str, damaged: DamagedLogs) -> None:
        self.log = log
        self.damaged = damaged
        self.known = False
        """False until the home has sent the head for the first time."""
        self.refused: NotFollowed | None = None
        """Why the home does not allow following it, permanently or now."""
        self.epoch = NO_EPOCH
        self.seq = 0
        self.received = Head(NO_EPOCH, 0)
        self.repair_to = 0
        """Entries up to this one are in the store and were not received; 0: nothing is missing."""
        self.running = RunningBatch()
        self.events: list[bytes] = []
        self.subscriptions: dict[Subscriber, Subscription] = {}
        self.live: dict[Subscription, Outbox] = {}
        """Live subscriptions with their outboxes, which are all that the hot loop needs."""
        self.ahead: list[Subscription] = []
        """Subscriptions with a cursor beyond H: they come from a worker that was further ahead."""
        self.joining: deque[Reply[None]] = deque()
        """Joins that wait for the head, or for their turn after that."""
        self.awaiting: list[tuple[int, Reply[None]]] = []
        """Joins that wait until H is at this entry, which allows them."""
        self.here: dict[str, tuple[str, int]] = {}
        """Name to (display name, connections here)."""
        self.changed: set[str] = set()
        """Names in ``here`` with changes that must be reported to the home."""
        self.paused_until = 0.0
        self.swept_bytes = 0
        """Bytes distributed in the current sweep (``fanout``)."""
        self.swept = 0
        """``seq`` at the end of the last sweep (``fanout``)."""
        self.torn = False
        """True if missing entries, possibly control entries, were removed from the store."""
        self.room = Room()
        """The room's state as of H, which decides who may read. Unused for other logs."""
        self.begun: bytes | None = None
        """What ``identity`` has read, until another room of this name begins."""
        self.continued: tuple[Erasures, bytes, int] | None = None
        """Of ``Catchup.gap``: since these erasures, one continued in this epoch after this seq."""

    @property
    def head(self) -> Head:
        """H of invariant "One seam": the last entry distributed on this worker."""
        return Head(self.epoch, self.seq)

    @property
    def idle(self) -> bool:
        """True when the feed is not needed by any connection here."""
        if self.subscriptions or not all(reply.abandoned for reply in self.joining):
            return False
        return all(reply.abandoned for _, reply in self.awaiting)

    def identity(self, reader: Reader) -> bytes:
        """Return which of the rooms of this name it is, as of H (``Submission.identity``).

        Empty if there is none (yet), and for an inbox. Raises StoreError.
        """
        if self.seq == 0 or is_inbox(self.log):
            return b""
        if self.begun is None:
            self.begun = reader.epoch_at(self.log, self.room.created)
        return self.begun

    # --- from the home ------------------------------------------------------------------------
    def on_head(self, epoch: bytes, seq: int, state: bytes = b"") -> bool:
        """Handle the head from the home. ``state``: the packed state of the log, for a new
        subscription.

        Returns:
            False if it contradicts what was received: stored state was lost. The clients must
            reconnect, and then see the loss as a gap.
        """
        if not self.known:
            self.known = True
            self.epoch, self.seq = epoch, seq
            self.swept = seq
            self.received = Head(epoch, seq)
            try:
                self.room = stored_room(self.log, state)
            except LogDamaged as error:
                self.damaged.report(self.log, error)
                self.room = UNREADABLE
            return True
        known = self.received
        if seq < known.seq or (seq == known.seq and epoch != known.epoch):
            return False
        if seq > max(known.seq, self.repair_to):
            self.repair_to = seq
        return True

    def receive(self, batch: BusBatch) -> bool:
        """Handle a batch from the home. Returns True if there is something to distribute."""
        last = batch.last
        if not self.known or last <= self.received.seq:
            return False  # repaired from the store before it arrived
        if self.repair_to or batch.prev != self.received.seq:
            self.repair_to = max(self.repair_to, last)
            return False
        epoch = batch.epoch
        self.running.add(batch.prev, epoch, last, batch.count, batch.content, batch.control)
        self.received = _new(Head, (epoch, last))
        return True

    def repair(self, reader: Reader, bytes_max: int) -> bool:
        """Read one page of the missing entries. Returns True if there is something to distribute.

        Raises:
            StoreError: it cannot be read now; LogDamaged: what is there is no entry.
        """
        known = self.received
        page = reader.read(self.log, known.seq, self.repair_to, bytes_max)
        first = page.rows[0] if page.rows else None
        if first is not None and first[0] != known.seq + 1:
            self.torn = stored_entry(self.log, first[1]).prev != known.seq
        if self.torn:
            return False
        if bad := unreadable(self.log, page.rows, known.seq):
            raise damage_of(self.log, bad)
        start = 0
        for end, (last, packed) in enumerate(page.rows, 1):
            control = is_control(packed)
            if end < len(page.rows) and not control and not is_control(page.rows[end][1]):
                continue
            epoch = reader.epoch_at(self.log, last)
            content = b"".join([row[1] for row in page.rows[start:end]])
            self.running.add(self.received.seq, epoch, last, end - start, content, control)
            self.received = Head(epoch, last)
            start = end
        if page.end or self.received.seq >= self.repair_to:
            self.repair_to = 0
        return bool(page.rows)

    def fail(self, detail: str = "") -> None:
        """Disconnect all members because entries for them are lost; they reconnect and resume."""
        for subscriber in list(self.subscriptions):
            subscriber.close(CloseCode.INTERNAL, detail)
        self.reached(limits.U63_MAX)

    def until(self, seq: int) -> Reply[None]:
        """Return an awaitable for a join: H is at this entry, or will not be."""
        reply: Reply[None] = Reply()
        self.awaiting.append((seq, reply))
        return reply

    def reached(self, upto: int) -> None:
        """Continue the joins that wait for entries up to this one."""
        for _ in range(len(self.awaiting)):  # those still waiting keep the feed
            seq, reply = self.awaiting.pop(0)
            if seq <= upto:
                reply.resolve(None)
            else:
                self.awaiting.append((seq, reply))

    # --- who may read it ------------------------------------------------------------------------
    def control(self, packed: bytes) -> list[tuple[Subscriber, Refused]]:
        """Apply a control entry that was distributed.

        Return those who may no longer follow the log.
        """
        entry = unpack_entry(packed)
        try:
            event = room_events.unpack(entry.body)
        except EnvelopeError as error:
            self.damaged.report(self.log, LogDamaged(self.log, error))
            self.room = UNREADABLE
            return [(one, Refused(Reason.DAMAGED)) for one in self.subscriptions]
        self.room = room = rooms.applied(self.room, event, entry.sender, entry.seq)
        if isinstance(event, room_events.Created):
            self.begun = entry.epoch
        if isinstance(event, room_events.Kicked):
            kicked = Refused(Reason.KICKED_OUT, event.reason)
            return [(one, kicked) for one in self.subscriptions if one.actor.handle == event.handle]
        if isinstance(event, room_events.Deleted):
            deleted = Refused(Reason.NO_SUCH_ROOM, "the room was deleted")
            return [(one, deleted) for one in self.subscriptions]
        found: list[tuple[Subscriber, Refused]] = []
        for subscriber in self.subscriptions:
            refused = refusal(room, subscriber.actor, Right.READ)
            if refused is not None:
                found.append((subscriber, refused))
        return found

    # --- who follows it ------------------------------------------------------------------------
    def enter_live(self, subscription: Subscription) -> None:
        """Make a subscription live. Its cursor must be H in this same turn.

        Invariant "One seam".
        """
        assert subscription.seq == self.seq, "only a cursor at the head may enter live"
        assert self.subscriptions.get(subscription.subscriber) is subscription
        subscription.live = True
        self.live[subscription] = subscription.outbox

    def leave_live(self, subscription: Subscription, seq: int) -> None:
        """Remove a subscription from the live set.

        ``seq``: the last entry that it has or will have.
        """
        assert seq <= self.seq, "nobody was shown anything above the head"
        subscription.live = False
        subscription.seq = seq
        self.live.pop(subscription, None)

    def add(self, subscription: Subscription, name: str, display: str) -> None:
        """A connection follows the log from now on. Without a name, no presence is reported."""
        assert subscription.subscriber not in self.subscriptions, "one subscription for each"
        self.subscriptions[subscription.subscriber] = subscription
        if name:
            _, count = self.here.get(name, ("", 0))
            self.here[name] = (display, count + 1)
            self.changed.add(name)

    def remove(self, subscription: Subscription, name: str) -> None:
        """A connection no longer follows the log."""
        del self.subscriptions[subscription.subscriber]
        self.live.pop(subscription, None)
        if not name:
            return
        display, count = self.here[name]
        if count > 1:
            self.here[name] = (display, count - 1)
        else:
            del self.here[name]
        self.changed.add(name)

    def presence(self, names: set[str]) -> list[list[str | int]]:
        """Return [name, display name, connections here] for some names; 0: the name has left."""
        return [[name, *self.here.get(name, ("", 0))] for name in sorted(names)]


class Feeds:
    """The feeds of a worker by log name, and those that need work."""

    def __init__(self, routes: Routes, damaged: DamagedLogs, pages: Pages) -> None:
        self._routes = routes
        self._damaged = damaged
        self._pages = pages
        self.by_log: dict[str, Feed] = {}
        self.to_distribute: dict[Feed, None] = {}
        """Feeds with entries or events for their live members, including paused ones."""
        self.to_repair: dict[Feed, None] = {}
        """Feeds with entries to read from the store."""

    def open(self, name: str) -> Feed:
        """Return the feed of a log. A new one is not ``known`` until the home has answered."""
        feed = self.by_log.get(name)
        if feed is None:
            feed = self.by_log[name] = Feed(name, self._damaged)
            port = self._routes.port_of(name)
            if port is not None:
                port.send(Subscribe(name))
        return feed

    def known(self, feed: Feed) -> Reply[None]:
        """Return an awaitable for a join: the head is known, or the log is ``refused``."""
        reply: Reply[None] = Reply()
        if feed.known or feed.refused is not None:
            reply.resolve(None)
        else:
            feed.joining.append(reply)
        return reply

    def forget(self, feed: Feed) -> bool:
        """Drop a feed that no connection follows any more.

        Returns:
            False if it was dropped before; its log may have another feed by now.
        """
        assert feed.idle, "a feed that is followed must not be forgotten"
        if self.by_log.get(feed.log) is not feed:
            return False
        del self.by_log[feed.log]
        self.to_distribute.pop(feed, None)
        self.to_repair.pop(feed, None)
        self._pages.drop(feed)
        return True

    # --- from the homes -----------------------------------------------------------------------
    def on_head(self, name: str, epoch: bytes, seq: int, state: bytes = b"") -> None:
        """Handle the head of a log, and its state after control entries."""
        feed = self.by_log.get(name)
        if feed is None:
            return
        feed.refused = None
        if not feed.on_head(epoch, seq, state):
            log.error("log_went_back", extra={"log": name})
            feed.fail("stored state was lost")
            return
        if feed.repair_to:
            self.to_repair[feed] = None
        # Each continues with its client's next operations; those still waiting keep the feed.
        while feed.joining:
            feed.joining.popleft().resolve(None)

    def on_not_followed(self, message: NotFollowed) -> None:
        """A log cannot be followed (any more): tell its followers and the waiting joins.

        If this is temporary, followers continue when the home has sent the head.
        """
        feed = self.by_log.get(message.log)
        if feed is None:
            return
        feed.refused = message
        if message.code != ErrorCode.UNAVAILABLE:
            self.to_repair.pop(feed, None)
            for subscriber in list(feed.subscriptions):
                subscriber.remove(feed.log, Refused(Reason.DAMAGED, message.text))
        while feed.joining:
            feed.joining.popleft().resolve(None)
        feed.reached(limits.U63_MAX)

    def give_up(self, partitions: frozenset[int], text: str) -> None:
        """Refuse joins that wait for the heads of logs whose homes have been away for long."""
        for feed in list(self.by_log.values()):
            waited_for = feed.joining or feed.awaiting
            if waited_for and partition_of(feed.log) in partitions:
                self.on_not_followed(NotFollowed(feed.log, int(ErrorCode.UNAVAILABLE), text))

    def on_batch(self, _: Port, batch: BusBatch) -> None:
        """Handle a batch of entries."""
        feed = self.by_log.get(batch.log)
        if feed is None:
            return
        if feed.receive(batch):
            self.to_distribute[feed] = None
        if feed.repair_to:
            self.to_repair[feed] = None

    def on_event(self, _: Port, event: Event) -> None:
        """Send an envelope that is no entry (a roster change) to the live members; best effort."""
        feed = self.by_log.get(event.log)
        if feed is not None:
            feed.events.append(event.content)
            self.to_distribute[feed] = None
