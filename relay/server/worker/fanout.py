"""Fan-out: from a log's committed entries to the outboxes of its live members on this worker.

``Feed`` is what this worker knows of one followed log. Its ``head`` is H of rule 3: the last entry
that was distributed here; no client is shown anything above it. Whoever has everything up to H may
enter the live set, in that same turn, and misses nothing: what comes later is distributed to it.

*Breathing*: after a distribution whose writes took T, the log rests for ``REST_FACTOR * T`` before
the next one; the first entry after a rest leaves at once. One busy room then never takes more than
1 / (1 + REST_FACTOR) of the worker, and its batches grow before the loop saturates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.entries import NO_EPOCH, Head
from relay.server.worker.batch import EVENT, Batch, RunningBatch

if TYPE_CHECKING:
    from relay.server.worker.session import Session

REST_FACTOR: Final = 0.7
"""k of architecture.md ("about 0.5 to 1")."""
REST_S_MIN: Final = 0.0005
"""Shorter rests are not worth a timer: small rooms never rest."""
REST_S_MAX: Final = 0.05


class Member:
    """One connection's membership in one log. A new object whenever it enters live again."""

    __slots__ = ("feed", "live", "queued", "seq", "session")

    def __init__(self, session: Session, feed: Feed, seq: int) -> None:
        self.session = session
        self.feed = feed
        self.seq = seq
        """The cursor, kept only while not live (rule 4: cursors cost nothing while live)."""
        self.live = False
        self.queued = False
        """True while the catch-up queue holds it."""


class Feed:
    """One log as followed on this worker."""

    __slots__ = ("epoch", "events", "live", "log", "members", "rest_until", "running", "seq")

    def __init__(self, log: str, head: Head) -> None:
        self.log = log
        self.epoch, self.seq = head
        self.running = RunningBatch()
        self.events: list[bytes] = []
        self.members: dict[Session, Member] = {}
        self.live: dict[Member, None] = {}
        self.rest_until = 0.0

    @property
    def head(self) -> Head:
        """H of rule 3: the last entry distributed on this worker."""
        return Head(self.epoch, self.seq)

    def enter_live(self, member: Member) -> None:
        """Make a member live. Its cursor must be H, in this very turn (rule 3)."""
        assert member.seq == self.seq, "a member may enter live only at the head"
        member.live = True
        self.live[member] = None

    def leave_live(self, member: Member, seq: int) -> None:
        """Take a member out of live; ``seq`` is the last entry that it has or will have."""
        member.live = False
        member.seq = seq
        self.live.pop(member, None)


class Fanout:
    """All feeds of a worker, and the ones with something to distribute."""

    def __init__(self) -> None:
        self.feeds: dict[str, Feed] = {}
        self.waiting: dict[Feed, None] = {}
        """Feeds with entries or events to distribute, resting ones too."""
        self.dirty: list[Session] = []
        """Sessions whose outbox was empty before this turn's distribution: to be flushed."""
        self.deliveries = 0

    def publish(self, feed: Feed, epoch: bytes, prev: int, seq: int, packed: bytes) -> None:
        """Append a committed entry to a feed's running batch."""
        feed.running.add(epoch, prev, seq, packed)
        self.waiting[feed] = None

    def announce(self, feed: Feed, envelope: bytes) -> None:
        """Send an envelope that is no entry (a roster change) to the live members, best effort."""
        feed.events.append(envelope)
        self.waiting[feed] = None

    def distribute(self, now: float) -> list[Feed]:
        """Hand the running batches of all feeds that do not rest to their live members' outboxes.

        Returns:
            The feeds that were distributed, for ``rest``.
        """
        done: list[Feed] = []
        for feed in list(self.waiting):
            if feed.rest_until > now:
                continue
            del self.waiting[feed]
            done.append(feed)
            if feed.events:
                content = _whole(feed.events)
                feed.events.clear()
                self._offer(feed, Batch(feed.log, NO_EPOCH, EVENT, EVENT, content))
            if feed.running:
                epoch, seq = feed.running.last()
                for batch in feed.running.close(feed.log, feed.epoch):
                    self._offer(feed, batch)
                feed.epoch, feed.seq = epoch, seq
        return done

    def _offer(self, feed: Feed, batch: Batch) -> None:
        size = batch.size
        dirty = self.dirty
        over: list[Session] = []
        for member in feed.live:
            session = member.session
            outbox = session.outbox
            if not outbox.items:
                dirty.append(session)
            outbox.items.append(batch)
            outbox.size += size
            if outbox.size > limits.OUTBOX_BYTES_MAX:
                over.append(session)
        self.deliveries += len(feed.live) - len(over)
        for session in over:
            session.fall_behind()

    def rest(self, feeds: list[Feed], took_s: float, now: float) -> None:
        """Let the feeds of a distribution rest in proportion to what writing it took."""
        total = sum(len(feed.live) for feed in feeds)
        for feed in feeds:
            rest_s = REST_FACTOR * took_s * len(feed.live) / total if total else 0.0
            if rest_s >= REST_S_MIN:
                feed.rest_until = now + min(rest_s, REST_S_MAX)


def _whole(events: list[bytes]) -> bytes:
    """Join the newest events that fit one record; each is whole."""
    size = 0
    kept: list[bytes] = []
    for event in reversed(events):
        size += len(event)
        if size > limits.RECORD_CONTENT_BYTES_MAX:
            break
        kept.append(event)
    return b"".join(reversed(kept))
