"""Broken relays: each has one bug that a reasonable implementation might have.

The history checker must catch every one of them (tests/torture/test_broken_variants.py). A bug is
patched into a worker after the fork (``tests.support.faulty``), and is as small as it can be.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import apsw

    from relay.chat.accounts.refusal import Refused
    from relay.chat.entries import Cursor, Entry, Extra, Head, Submission
    from relay.chat.rooms.state import Room
    from relay.server.context import WorkerContext
    from relay.server.worker.connection.session import Session
    from relay.server.worker.home.submissions import Waiting
    from relay.server.worker.member.fanout import Fanout
    from relay.server.worker.member.feed import Feed
    from relay.server.worker.member.repair import Repair
    from relay.server.worker.member.subscription import Subscription
    from relay.server.worker.member.subscriptions import Subscriptions
    from relay.store.decide import Decision
    from relay.store.file.generation import Begun
    from relay.store.log import Denied, Outcome, ResumePoint, Stored
    from relay.store.reading.reader import SqliteReader
    from relay.store.state import Changes, LogEnd, ProducerEnd

FAILING_COMMITS = 0.1


def _is_of_the_start(context: WorkerContext) -> bool:
    """Return True if a worker does not replace a killed one."""
    return context.scoreboard.row(context.index).get("restarts") == 0


def deliver_before_commit(_: WorkerContext) -> None:
    """The home publishes a batch, then commits it: and some commits of rooms fail."""
    from relay.chat import names
    from relay.server.worker.home.followers.publishing import Publishing
    from relay.store import apply
    from relay.store.decide import Decision
    from relay.store.log import Began, Stored
    from relay.store.sqlite import SqlitePartition

    everywhere: list[Publishing] = []
    pending: list[tuple[str, Stored | Began]] = []
    make, begin = Publishing.__init__, SqlitePartition.__init__
    decide, write, publish = Decision.decide, apply.write, Publishing.publish

    def making(self: Publishing, *rooms: Any, **parts: Any) -> None:  # noqa: ANN401
        make(self, *rooms, **parts)
        everywhere.append(self)

    def beginning(self: SqlitePartition, *paths: Any, **parts: Any) -> None:  # noqa: ANN401
        begin(self, *paths, **parts, write=publishing_then_writing)

    def deciding(self: Decision, batch: list[Submission]) -> list[Outcome]:
        outcomes = decide(self, batch)
        for submission, outcome in zip(batch, outcomes, strict=False):
            if type(outcome) is Stored or type(outcome) is Began:
                pending.append((submission.log, outcome))
        return outcomes

    def publishing_then_writing(
        connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int
    ) -> None:
        import apsw

        for home in everywhere:
            for log, stored in pending:
                if isinstance(stored, Began):
                    home.interest.publish_control(log, stored.first)
                home.interest.publish_rows(log, [Stored(*stored[:4])])
        of_rooms = all(names.is_room(log) for log, _ in pending)
        pending.clear()
        if of_rooms and random.random() < FAILING_COMMITS:
            raise apsw.FullError("the disk is full, just now")
        write(connection, changes, day)

    def publishing(self: Publishing, group: list[Waiting], outcomes: list[Outcome]) -> None:
        logs, self.interest.logs = self.interest.logs, {}  # it was published before
        try:
            publish(self, group, outcomes)
        finally:
            self.interest.logs = logs

    # A thread must not publish.
    SqlitePartition.begin = SqlitePartition.append  # type: ignore[method-assign]
    Publishing.__init__ = making  # type: ignore[method-assign]
    Decision.decide = deciding  # type: ignore[method-assign]
    SqlitePartition.__init__ = beginning  # type: ignore[method-assign]
    Publishing.publish = publishing  # type: ignore[method-assign]


def no_deduplication(_: WorkerContext) -> None:
    """A message that is sent again is appended again."""
    from relay.store.decide import Decision

    offer = Decision.offer

    def offering(self: Decision, end: ProducerEnd, submission: Submission) -> Outcome:
        if submission.counter <= end.counter:
            end.counter, end.stack = submission.counter - 1, ()
        return offer(self, end, submission)

    Decision.offer = offering  # type: ignore[method-assign]


def no_repair(_: WorkerContext) -> None:
    """Entries that the bus has dropped are never read from the log."""
    from relay.server.worker.member.repair import Repair

    def repairing(self: Repair) -> bool:
        self._feeds.to_repair.clear()
        return False

    Repair.run = repairing  # type: ignore[method-assign]


def cursor_is_head(_: WorkerContext) -> None:
    """A reader that falls behind goes on at the head, instead of where it was."""
    from relay.server.worker.member.subscriptions import Subscriptions
    from relay.wire.envelopes import Behind
    from relay.wire.packing import pack

    def falling(self: Subscriptions) -> None:
        self.outbox.drop_batches()
        self._following.stalled.count_behind(self.actor.handle)
        for log, subscription in self.by_log.items():
            feed = self._following.feeds.by_log[log]
            if subscription.live:
                epoch, seq = feed.head
                feed.leave_live(subscription, seq)
                self.outbox.answer(pack(Behind(log, epoch, seq)))
                self._following.catchup.add(feed, subscription)

    Subscriptions.fall_behind = falling  # type: ignore[method-assign]


def gap_on_resume(_: WorkerContext) -> None:
    """A client that resumes with a cursor is told of a gap, and continues at the head."""
    from relay.chat.entries import Cursor, GapInfo, GapReason
    from relay.store.log import ResumePoint
    from relay.store.reading.reader import SqliteReader

    def resuming(self: SqliteReader, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        return ResumePoint(head.seq, GapInfo(cursor, Cursor(*head), GapReason.RETENTION))

    SqliteReader.resume = resuming  # type: ignore[method-assign]


def silent_after_kill(context: WorkerContext) -> None:
    """A worker that replaces a killed one takes connections and joins, and delivers nothing."""
    from relay.server.worker.member.fanout import Fanout

    if _is_of_the_start(context):
        return

    def distributing(self: Fanout, now: float) -> None:
        self._feeds.to_distribute.clear()

    Fanout.distribute = distributing  # type: ignore[method-assign]


def seq_reused(_: WorkerContext) -> None:
    """A partition that was not closed cleanly comes back without the last entries of its rooms."""
    from relay.store import state
    from relay.store.file import generation, schema

    begin = generation.begin

    def beginning(connection: apsw.Connection, **facts: object) -> Begun:
        meta = generation.read_meta(connection)
        if meta.get("clean") == 0:
            for (log_id,) in schema.rows(
                connection, "SELECT id FROM log WHERE substr(name, 1, 1) NOT IN ('@', '!')"
            ):
                connection.execute(
                    "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE id BETWEEN ? AND ?"
                    " ORDER BY id DESC LIMIT 3)",
                    (state.row_id(log_id, 1), state.row_id(log_id, state.SEQ_MASK)),
                )
        return begin(connection, **facts)  # type: ignore[arg-type]

    generation.begin = beginning


def live_too_early(_: WorkerContext) -> None:
    """A reader that catches up goes live at the head that it saw at the start, whatever came
    meanwhile.
    """
    from relay.server.worker.member.catchup import Catchup
    from relay.wire.envelopes import Live
    from relay.wire.packing import pack

    serve = Catchup._serve
    heads: dict[Subscription, int] = {}

    def serving(self: Catchup, feed: Feed, subscription: Subscription) -> None:
        head = heads.setdefault(subscription, feed.seq)
        serve(self, feed, subscription)
        if not subscription.live and head <= subscription.seq < feed.seq:
            subscription.seq = feed.seq
            feed.enter_live(subscription)
            subscription.outbox.answer(pack(Live(feed.log, feed.epoch, feed.seq)))
        if subscription.live:
            del heads[subscription]

    Catchup._serve = serving  # type: ignore[method-assign]


def rights_of_a_moment_ago(_: WorkerContext) -> None:
    """Each message is judged by the rights found for its sender's previous one, not by the current
    ones.
    """
    from relay.server.worker.home.rooms.rules import RoomRules

    before = RoomRules.before
    remembered: dict[tuple[str, str], Denied | Submission | None] = {}

    def judging(
        self: RoomRules, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Denied | Submission | None:
        found = before(self, log, submission, target)
        if log.id == 0:
            return found
        key = submission.log, submission.sender
        answer = remembered.get(key, found)
        remembered[key] = found
        return answer

    RoomRules.before = judging  # type: ignore[method-assign]


def tickets_twice(_: WorkerContext) -> None:
    """Whether a ticket was used is looked up, but not recorded."""
    from relay.server.ticket_register import TicketRegister

    def good(self: TicketRegister, generation: int, serial: int) -> bool:
        return True

    TicketRegister.spend = good  # type: ignore[method-assign]


def hides_devices(_: WorkerContext) -> None:
    """A list of devices is read from a copy that is not always the latest."""
    from relay.server.worker.connection.requests import devices

    chain_of = devices.chain_of

    def behind(session: Session, name: str) -> list[bytes]:
        links = chain_of(session, name)
        return links[:-1] if len(links) > 1 and random.random() < 0.3 else links

    devices.chain_of = behind


def nobody_is_put_out(_: WorkerContext) -> None:
    """A ban forbids joining, but does not remove those who have joined."""
    from relay.server.worker.member.feed import Feed

    control = Feed.control

    def controlling(self: Feed, packed: bytes) -> list[object]:
        control(self, packed)
        return []

    Feed.control = controlling  # type: ignore[method-assign, assignment]


def rights_for_messages_alone(_: WorkerContext) -> None:
    """The right to write is checked for messages, not for what is about them."""
    from relay.chat.entries import Kind
    from relay.server.worker.home.rooms.rules import RoomRules

    before = RoomRules.before

    def judging(
        self: RoomRules, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Denied | Submission | None:
        if log.id and submission.kind in (Kind.EDIT, Kind.REACTION):
            return None
        return before(self, log, submission, target)

    RoomRules.before = judging  # type: ignore[method-assign]


def erases_as_before(_: WorkerContext) -> None:
    """Who might erase messages of others once may go on doing so."""
    from relay.chat.entries import Kind
    from relay.server.worker.home.rooms.rules import RoomRules

    before = RoomRules.before
    moderators: set[tuple[str, str]] = set()

    def judging(
        self: RoomRules, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Denied | Submission | None:
        found = before(self, log, submission, target)
        if submission.kind == Kind.REDACTION and target and target.sender != submission.sender:
            who = submission.log, submission.sender
            if found is None:
                moderators.add(who)
            return None if who in moderators else found
        return found

    RoomRules.before = judging  # type: ignore[method-assign]


def changes_as_before(_: WorkerContext) -> None:
    """Who might change a room once may go on doing so."""
    from relay.chat.rooms import decide
    from relay.chat.rooms.rights import Actor, Right, refusal

    allowed: set[tuple[str, Right]] = set()

    def refusing(room: Room, actor: Actor, right: Right) -> object:
        found, what = refusal(room, actor, right), (actor.handle, right)
        if found is None:
            allowed.add(what)
        return None if what in allowed else found

    decide.refusal = refusing  # type: ignore[attr-defined, assignment]


def shows_former_rooms(_: WorkerContext) -> None:
    """What was deleted is read until it is removed, by followers of the next room of the name."""
    from relay.chat.rooms.state import Room

    Room.floor = property(lambda _: 0)  # type: ignore[assignment, method-assign]


def takes_any_room_of_the_name(_: WorkerContext) -> None:
    """A message is stored in the room that has its room's name now."""
    from relay.store import decide

    def none(*_: object) -> None:
        return None

    decide.for_another_room = none  # type: ignore[assignment,attr-defined]


def resumes_in_any_room_of_the_name(_: WorkerContext) -> None:
    """A client that comes back continues in the room that has its room's name now."""
    from relay.server.worker.connection.requests import join

    refusal = join._refusal

    def whichever(room: Room, session: Session, identity: bytes, meant: bytes) -> object:
        return refusal(room, session, identity, b"")

    join._refusal = whichever  # type: ignore[assignment]


def lets_anybody_join(_: WorkerContext) -> None:
    """Read rights are checked when they change, but not at a join."""
    from relay.server.worker.connection.requests import join

    def none(*_: object) -> None:
        return None

    join.refusal = none  # type: ignore[assignment,attr-defined]


def forgets_rights_at_a_kill(context: WorkerContext) -> None:
    """A home that replaces a killed one does not check the rights of senders."""
    from relay.server.worker.home.rooms.rules import RoomRules

    if _is_of_the_start(context):
        return
    before = RoomRules.before

    def judging(
        self: RoomRules, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Denied | Submission | None:
        return before(self, log, submission, target) if log.id == 0 else None

    RoomRules.before = judging  # type: ignore[method-assign]


def forgets_tickets_at_a_kill(context: WorkerContext) -> None:
    """A worker that replaces a killed one starts an empty register of used tickets."""
    if _is_of_the_start(context):
        return
    register = context.tickets
    start = register._start(0)
    register._memory[start:] = bytes(len(register._memory) - start)


def devices_go_back_at_a_kill(context: WorkerContext) -> None:
    """A worker that replaces a killed one shows device lists as it first read them."""
    from relay.server.worker.connection.requests import devices

    if _is_of_the_start(context):
        return
    chain_of = devices.chain_of
    known: dict[str, list[bytes]] = {}

    def remembered(session: Session, name: str) -> list[bytes]:
        return known.setdefault(name, chain_of(session, name))

    devices.chain_of = remembered


def lets_removed_devices_in_at_a_kill(context: WorkerContext) -> None:
    """A home that replaces a killed one knows devices, but not which of them were removed."""
    from relay.chat.accounts.account import Account

    if _is_of_the_start(context):
        return
    refusal = Account.refusal

    def refusing(self: Account, key: bytes) -> Refused | None:
        was_device = self.chain is not None and key in self.chain.removed
        return None if was_device else refusal(self, key)

    Account.refusal = refusing  # type: ignore[method-assign]


def forgets_pending(_: WorkerContext) -> None:
    """Copies of direct messages are sent some time after the acceptance, and a new home
    sends none.
    """
    from relay.server.worker.home.direct.copies import Copies

    accepted = Copies.accepted

    def accepting(self: Copies, inbox: str, peer: str, seq: int) -> None:
        self._later(0.7, lambda: accepted(self, inbox, peer, seq))

    def resuming(self: Copies, pending: list[tuple[str, int, str]]) -> None:
        for inbox, seq, _ in pending:
            self._confirm(inbox, seq)

    Copies.accepted = accepting  # type: ignore[method-assign]
    Copies.resume = resuming  # type: ignore[method-assign]


def takes_copies_again(_: WorkerContext) -> None:
    """A repeated copy is stored as another message, and confirmations are not recorded."""
    from relay.server.worker.home.committing.notes import CommitNotes
    from relay.store.decide import Decision

    early = Decision._early

    def deciding(
        self: Decision, end: ProducerEnd, submission: Submission, extra: Extra
    ) -> Outcome | None:
        if extra.origin_seq and extra.origin_seq <= end.counter:
            return None
        return early(self, end, submission, extra)

    def confirming(self: CommitNotes, log: str, seq: int) -> None:
        """It will be sent again by the next home."""

    Decision._early = deciding  # type: ignore[method-assign]
    CommitNotes.confirm = confirming  # type: ignore[method-assign]


def removes_untold(_: WorkerContext) -> None:
    """A reader whose cursor is before removed entries continues after them without a gap."""
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.pages import Page
    from relay.store.reading.reader import SqliteReader
    from relay.wire.envelopes import EntryMessage
    from relay.wire.packing import pack, unpack_server

    resume, page = SqliteReader.resume, Catchup._page

    def resuming(self: SqliteReader, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        return resume(self, log, cursor, head)._replace(after=cursor.seq, gap=None)

    def reading(self: Catchup, feed: Feed, after: int, upto: int) -> Page:
        found = page(self, feed, after, upto)
        content = found.content
        if found.before > after and content:
            first, *others = unpack_server(content)
            assert isinstance(first, EntryMessage)
            content = b"".join(map(pack, [first._replace(prev=after), *others]))
        return found._replace(before=after, content=content)

    SqliteReader.resume = resuming  # type: ignore[method-assign]
    Catchup._page = reading  # type: ignore[method-assign]


def tells_too_much(_: WorkerContext) -> None:
    """A reader whose cursor is before removed entries is told of a larger gap, and gets fewer
    entries.
    """
    from relay.store.reading.reader import SqliteReader

    resume = SqliteReader.resume

    def resuming(self: SqliteReader, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        found = resume(self, log, cursor, head)
        gap = found.gap
        if gap is None:
            return found
        return type(found)(head.seq, gap._replace(end=gap.end._replace(seq=head.seq)))

    SqliteReader.resume = resuming  # type: ignore[method-assign]


def removes_too_much(_: WorkerContext) -> None:
    """Retention keeps fewer messages than it should."""
    from relay.store.retention.limits import Excess, RetentionLimits
    from relay.store.retention.removal_reader import RemovalReader

    removable = RemovalReader.removable

    def looking(
        self: RemovalReader, log: str, keep: RetentionLimits, now_ms: int, grace_ms: int
    ) -> Excess:
        few = keep._replace(messages=min(keep.messages, 1))
        return removable(self, log, few, now_ms, grace_ms)

    RemovalReader.removable = looking  # type: ignore[method-assign]


def erases_for_members_alone(_: WorkerContext) -> None:
    """A redaction is only an entry for clients to interpret: the store keeps the redacted
    content.
    """
    from relay.store.decide import Decision

    def erasing(self: Decision, *_: object) -> None:
        """Leave it."""

    Decision._erase = erasing  # type: ignore[method-assign, assignment]


def keeps_pages(_: WorkerContext) -> None:
    """Pages that a worker has read once are served again, erased or not."""
    from relay.store.reading.reader import SqliteReader

    page = SqliteReader._page
    kept: dict[tuple[object, ...], object] = {}

    def reading(self: SqliteReader, query: str, log: str, *rest: object) -> object:
        found = page(self, query, log, *rest)  # type: ignore[arg-type]
        for index, (seq, packed) in enumerate(found.rows):
            found.rows[index] = kept.setdefault((log, seq), (seq, packed))  # type: ignore[call-overload]
        return found

    SqliteReader._page = reading  # type: ignore[method-assign, assignment]


def anybody_edits(_: WorkerContext) -> None:
    """The author of a message is not checked."""
    from relay.chat import relations
    from relay.store import decide

    refusal = relations.refusal

    def judging(*args: object, **more: object) -> relations.Refusal:
        found = refusal(*args, **more)  # type: ignore[arg-type]
        return relations.Refusal.NONE if found is relations.Refusal.NOT_ALLOWED else found

    decide.refusal = judging  # type: ignore[attr-defined]


def reacts_to_the_erased(_: WorkerContext) -> None:
    """Entries about an erased one are still accepted."""
    from relay.chat import relations
    from relay.chat.entries import Kind

    relations.WHAT[Kind.REACTION] |= {Kind.ERASED}


def copies_places(_: WorkerContext) -> None:
    """A copy of a direct message refers to the place in the sender's inbox."""
    from relay.server.worker.home.direct.copies import Copies

    def place(self: Copies, flow: object, entry: Entry) -> tuple[tuple[bytes, int], str]:
        return (entry.about_epoch, entry.about_seq), ""

    Copies._about = place  # type: ignore[method-assign]


def does_not_wait_for_disk(_: WorkerContext) -> None:
    """A commit under durability "power" is acknowledged before the disk has it."""
    from relay.store.file import opening

    opening.SYNCHRONOUS["power"] = "NORMAL"


def remembers_what_did_not_fit(_: WorkerContext) -> None:
    """Counters that a full disk has refused are remembered, so a resend counts as a repeat."""
    import apsw

    from relay.store.opened import Opened
    from relay.store.state import Changes

    write, end = Opened.write, Opened.end

    def writing(self: Opened, changes: Changes, *, forced: bool, apart: bool) -> None:
        try:
            write(self, changes, forced=forced, apart=apart)
        except apsw.FullError:
            self.committed.apply(Changes({}, changes.producers))
            raise

    def ending(self: Opened, changes: Changes, *, forced: bool, now_ms: int) -> None:
        try:
            end(self, changes, forced=forced, now_ms=now_ms)
        except apsw.FullError:
            self.committed.apply(Changes({}, changes.producers))
            raise

    Opened.write = writing  # type: ignore[method-assign]
    Opened.end = ending  # type: ignore[method-assign]


def takes_an_error_for_success(_: WorkerContext) -> None:
    """A commit that ends with a disk error is acknowledged."""
    import apsw

    from relay.store.opened import Opened

    write, end = Opened.write, Opened.end

    def writing(self: Opened, changes: Changes, *, forced: bool, apart: bool) -> None:
        try:
            write(self, changes, forced=forced, apart=apart)
        except apsw.IOError:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def ending(self: Opened, changes: Changes, *, forced: bool, now_ms: int) -> None:
        try:
            end(self, changes, forced=forced, now_ms=now_ms)
        except apsw.IOError:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    Opened.write = writing  # type: ignore[method-assign]
    Opened.end = ending  # type: ignore[method-assign]


def keeps_its_epoch() -> None:
    """After a power loss numbering continues as if nothing was lost."""
    from relay.store.file import generation

    begin = generation.begin

    def beginning(connection: apsw.Connection, **facts: object) -> Begun:
        meta = generation.read_meta(connection)
        if meta.get("generation"):
            facts |= {"doubt": None, "boot_id": meta.get("boot_id"), "noted_opening": 0}
        return begin(connection, **facts)  # type: ignore[arg-type]

    generation.begin = beginning


OF_STORES: dict[str, Callable[[], None]] = {"keeps-its-epoch": keeps_its_epoch}
"""Those that are planted in whatever process opens a partition to write."""
VARIANTS: dict[str, Callable[[WorkerContext], None]] = {
    "deliver-before-commit": deliver_before_commit,
    "no-deduplication": no_deduplication,
    "no-repair": no_repair,
    "cursor-is-head": cursor_is_head,
    "gap-on-resume": gap_on_resume,
    "silent-after-kill": silent_after_kill,
    "seq-reused": seq_reused,
    "live-too-early": live_too_early,
    "rights-of-a-moment-ago": rights_of_a_moment_ago,
    "tickets-twice": tickets_twice,
    "hides-devices": hides_devices,
    "nobody-is-put-out": nobody_is_put_out,
    "rights-for-messages-alone": rights_for_messages_alone,
    "erases-as-before": erases_as_before,
    "changes-as-before": changes_as_before,
    "shows-former-rooms": shows_former_rooms,
    "takes-any-room-of-the-name": takes_any_room_of_the_name,
    "resumes-in-any-room-of-the-name": resumes_in_any_room_of_the_name,
    "lets-anybody-join": lets_anybody_join,
    "forgets-rights-at-a-kill": forgets_rights_at_a_kill,
    "forgets-tickets-at-a-kill": forgets_tickets_at_a_kill,
    "devices-go-back-at-a-kill": devices_go_back_at_a_kill,
    "lets-removed-devices-in-at-a-kill": lets_removed_devices_in_at_a_kill,
    "forgets-pending": forgets_pending,
    "takes-copies-again": takes_copies_again,
    "removes-untold": removes_untold,
    "tells-too-much": tells_too_much,
    "removes-too-much": removes_too_much,
    "erases-for-members-alone": erases_for_members_alone,
    "keeps-pages": keeps_pages,
    "anybody-edits": anybody_edits,
    "reacts-to-the-erased": reacts_to_the_erased,
    "copies-places": copies_places,
    "does-not-wait-for-disk": does_not_wait_for_disk,
    "remembers-what-did-not-fit": remembers_what_did_not_fit,
    "takes-an-error-for-success": takes_an_error_for_success,
}
