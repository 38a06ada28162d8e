"""JOIN and LEAVE: follow a log from its head, from some history, or from a cursor (resume)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.chat import names
from relay.chat.entries import Cursor, GapInfo, GapReason
from relay.chat.partition import partition_of
from relay.chat.rooms.refusal import not_this_room
from relay.chat.rooms.rights import Right, refusal
from relay.server.metrics import Budget, Resume
from relay.server.worker.connection.requests.charges import BYTES_PER_UNIT
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.server.worker.error_codes import ROOM_CODES
from relay.server.worker.member.feed import UNREADABLE
from relay.server.worker.stored import stored_room
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Gap, Joined, Left
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.chat.rooms.refusal import Refused
    from relay.chat.rooms.state import Room
    from relay.server.worker.connection.session import Session
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.feed import Feed
    from relay.store.log import Reader
    from relay.wire.envelopes import Join, Leave


async def join(session: Session, join: Join) -> None:
    """Follow a log. Catch-up makes it live (invariant "One seam")."""
    log = names.normal(join.log)
    subscriptions = session.subscriptions
    if names.is_inbox(log):
        if log[len(names.INBOX_PREFIX) :] != session.actor.handle or not session.key_id:
            session.refuse(join.request, ErrorCode.NOT_ALLOWED, 0, "this inbox is not yours")
            return
    elif not names.is_room(log):
        session.refuse(join.request, ErrorCode.NAME_INVALID, 0, "invalid room name")
        return
    if log in subscriptions.by_log:
        session.refuse(join.request, ErrorCode.ALREADY_JOINED)
        return
    if len(subscriptions.by_log) >= limits.LOGS_PER_CONNECTION_MAX:
        session.refuse(join.request, ErrorCode.LIMIT, limits.LOGS_PER_CONNECTION_MAX)
        return
    if _too_many(session):
        text = "connections of this address follow too many rooms"
        session.refuse(
            join.request, ErrorCode.LIMIT, session.services.budgets.limits.joins_per_source, text
        )
        return
    if join.last > limits.HISTORY_ON_JOIN_MAX:
        session.refuse(join.request, ErrorCode.BAD_REQUEST, limits.HISTORY_ON_JOIN_MAX)
        return

    following = session.services.following
    feed = following.feeds.open(log)
    try:
        await following.feeds.known(feed)  # wait for its head from the log's home
        if feed.refused is None and (seq := _allowed_later(session, feed, join.identity)):
            await feed.until(seq)
        if feed.refused is not None:
            code, text = feed.refused.code, feed.refused.text
            retry_ms = limits.RETRY_MS if code == ErrorCode.UNAVAILABLE else 0
            session.refuse(join.request, code, retry_ms, text)
            return
        counts = session.services.counts
        try:
            reader = session.services.reader_of(log)
            identity = feed.identity(reader)
            refused = _refusal(feed.room, session, identity, join.identity)
            if refused is not None:
                session.refuse(join.request, ROOM_CODES[refused.reason], 0, refused.text)
                return
            start, gap = _start(following.catchup, reader, feed, join)
        except StoreError as error:
            if join.epoch is not None:
                counts.resumes[Resume.UNAVAILABLE] += 1
            refuse_unreadable(session, join.request, partition_of(log), error)
            return
        session.answer(pack(Joined(join.request, log, *start, feed.epoch, feed.seq, identity)))
        after = start.seq
        if join.epoch is not None:
            counts.resumes[Resume.COMPLETE if gap is None else Resume.GAP] += 1
        if gap is not None:
            counts.gaps[GapReason(gap.reason).name.lower()] += 1
            session.answer(pack(gap))
            after = gap.to_seq
        subscriptions.enter(feed, after)
    finally:
        if feed.idle:  # it was refused, or the connection ended meanwhile
            following.presence.changed(feed)


def _refusal(room: Room, session: Session, identity: bytes, meant: bytes) -> Refused | None:
    """Return why the user may not join a room with this identity; None: it is allowed.

    ``meant``: the identity of the room that the user means; empty: whichever has the name.
    """
    if meant and meant != identity and room is not UNREADABLE:
        return not_this_room()
    return refusal(room, session.actor, Right.READ)


def _allowed_later(session: Session, feed: Feed, meant: bytes) -> int:
    """Return the entry, not distributed here yet, after which the user may join.

    Who was just invited, or whose ban was lifted, has heard of it before this worker is there, and
    so has who was in a new room. 0: there is none, or the user may join as of now.
    """
    try:
        reader = session.services.reader_of(feed.log)
        if _refusal(feed.room, session, feed.identity(reader), meant) is None:
            return 0
        if reader.head(feed.log).seq <= feed.seq:
            return 0  # without the state: anybody may ask, and that of a large room takes a while
        packed = reader.state(feed.log)
        session.sends.owe_work(len(packed) // BYTES_PER_UNIT)
        room = stored_room(feed.log, packed)
        identity = reader.epoch_at(feed.log, room.created)
    except StoreError:
        return 0
    may = room.version > feed.seq and _refusal(room, session, identity, meant) is None
    return room.version if may else 0


def _too_many(session: Session) -> bool:
    budgets, source = session.services.budgets, session.source
    most = budgets.limits.joins_per_source
    if not most or source.exempt or source.joins < most:
        return False
    budgets.refusals.count(Budget.JOINS_PER_SOURCE, source.name, session.services.clock())
    return True


def _start(catchup: Catchup, reader: Reader, feed: Feed, join: Join) -> tuple[Cursor, Gap | None]:
    """Return where a join begins: the cursor, and the gap to report before the first entry."""
    head = feed.head
    floor = feed.room.floor
    if join.epoch is None:
        if join.last == 0 or head.seq == 0:
            return Cursor(*head), None
        seq = max(floor, reader.floor_of_last(feed.log, join.last, head.seq))
        return Cursor(reader.epoch_at(feed.log, seq), seq), None
    cursor = Cursor(join.epoch, join.seq)
    gap = catchup.gap(feed, reader, cursor)
    if gap is None and cursor.seq < floor:
        gap = GapInfo(cursor, cursor, GapReason.EPOCH)  # earlier entries belong to another room
    if gap is None:
        return cursor, None
    start, end, reason = gap
    if end.seq < floor:
        end = Cursor(reader.epoch_at(feed.log, floor), floor)
    return cursor, Gap(feed.log, start.epoch, start.seq, end.epoch, end.seq, int(reason))


def leave(session: Session, leave: Leave) -> None:
    """Stop following a log."""
    log = names.normal(leave.log)
    if log not in session.subscriptions.by_log:
        session.refuse(leave.request, ErrorCode.NOT_A_MEMBER)
        return
    session.subscriptions.leave(log)
    session.answer(pack(Left(leave.request, log)))
