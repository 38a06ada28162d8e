"""Operation -> function: what each envelope of a client does. Wire meets chat only here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay import limits
from relay.bus.messages import Members as BusMembers
from relay.chat import names
from relay.chat.entries import Cursor, Kind, Submission
from relay.codec import Unknown
from relay.server.worker.feed import Member
from relay.store.errors import StoreError
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import (
    ClientEnvelope,
    Error,
    Gap,
    Hello,
    History,
    Join,
    Joined,
    Leave,
    Left,
    Members,
    Refused,
    Send,
    Welcome,
    Who,
    pack,
    pack_page,
)

if TYPE_CHECKING:
    from relay.server.worker.feed import Feed
    from relay.server.worker.hub import Hub
    from relay.server.worker.session import Session

RETRY_MS: Final = 500


def run(hub: Hub, session: Session, envelope: ClientEnvelope) -> None:
    """Do what one envelope asks. Refusals are answers; only protocol violations raise.

    Raises:
        RemoteProtocolError: the peer broke the protocol (a second HELLO, anything before it).
    """
    if session.ended:
        return
    if type(envelope) is Hello:
        _hello(session, envelope)
        return
    if not session.logged_in:
        session.close(CloseCode.PROTOCOL, detail="an operation before HELLO")
        return
    _OPERATIONS[type(envelope)](hub, session, envelope)


def _refuse(session: Session, request: int, code: ErrorCode, arg: int = 0, text: str = "") -> None:
    session.answer(pack(Error(request, int(code), arg, text)))


# --- login ------------------------------------------------------------------------------------
def _hello(session: Session, hello: Hello) -> None:
    if session.claiming:
        session.close(CloseCode.PROTOCOL, detail="a second HELLO")
        return
    name = names.normal(hello.name)
    if not names.is_handle(name) or names.is_reserved(name):
        _end_login(session, ErrorCode.NAME_INVALID, "a-z, 0-9, _ and -, 2 to 32 characters")
    elif not names.is_display(hello.display):
        _end_login(session, ErrorCode.NAME_INVALID, "the display name has characters not allowed")
    else:
        session.log_in(name, hello.secret, hello.display, hello.producer)


def welcome(hub: Hub, session: Session) -> None:
    """Tell a client that it is logged in."""
    session.answer(
        pack(
            Welcome(
                session.name,
                hub.wall_clock_ms(),
                limits.BODY_BYTES_MAX,
                limits.SENDS_UNACKNOWLEDGED_MAX,
                hub.agent_name,
            )
        )
    )


def name_taken(session: Session) -> None:
    """Tell a client that another instance has the name, and end."""
    _end_login(session, ErrorCode.NAME_TAKEN, "")


def _end_login(session: Session, code: ErrorCode, text: str) -> None:
    _refuse(session, 0, code, 0, text)
    session.close(CloseCode.NAME_REFUSED, detail=code.name)


# --- following a log --------------------------------------------------------------------------
def _join(hub: Hub, session: Session, join: Join) -> None:
    log = names.normal(join.log)
    if not _followable(session, join.request, log):
        return
    if log in session.feeds:
        _refuse(session, join.request, ErrorCode.ALREADY_JOINED)
        return
    if len(session.feeds) >= limits.LOGS_PER_CONNECTION_MAX:
        _refuse(session, join.request, ErrorCode.LIMIT, limits.LOGS_PER_CONNECTION_MAX)
        return
    if join.last > limits.HISTORY_ON_JOIN_MAX:
        _refuse(session, join.request, ErrorCode.BAD_REQUEST, limits.HISTORY_ON_JOIN_MAX)
        return
    feed = hub.feed(log)
    if feed.known:
        _enter(hub, session, join, feed)
        return
    # The log's home has not said its head yet. What the client asks next waits, too.
    session.block()

    def go_on() -> None:
        if not session.ended:
            _enter(hub, session, join, feed)
            session.unblock()
        elif feed.idle:
            hub.presence_changed(feed)

    feed.joining.append(go_on)


def _enter(hub: Hub, session: Session, join: Join, feed: Feed) -> None:
    """Become a member, behind the head at first: catch-up makes it live (rule 3)."""
    log = feed.log
    try:
        start, gap = _start(hub, feed, join)
    except StoreError:
        _refuse(session, join.request, ErrorCode.UNAVAILABLE, RETRY_MS)
        if feed.idle:
            hub.presence_changed(feed)
        return
    session.answer(pack(Joined(join.request, log, start.epoch, start.seq, feed.epoch, feed.seq)))
    after = start.seq
    if gap is not None:
        session.answer(pack(gap))
        after = gap.to_seq
    member = Member(session, feed, after)
    feed.add(member, session.name, session.display)
    session.feeds[log] = feed
    hub.presence_changed(feed)
    hub.catchup.add(member)


def _start(hub: Hub, feed: Feed, join: Join) -> tuple[Cursor, Gap | None]:
    """Where a join begins: (cursor, gap to report before the first entry)."""
    head = feed.head
    reader = hub.reader_of(feed.log)
    if join.epoch is None:
        if join.last == 0 or head.seq == 0:
            return Cursor(*head), None
        seq = reader.floor_of_last(feed.log, join.last, head.seq)
        return Cursor(reader.epoch_at(feed.log, seq), seq), None
    cursor = Cursor(join.epoch, join.seq)
    point = reader.resume(feed.log, cursor, head)
    if point.gap is None:
        return cursor, None
    start, end, reason = point.gap
    return cursor, Gap(feed.log, start.epoch, start.seq, end.epoch, end.seq, int(reason))


def _leave(hub: Hub, session: Session, envelope: Leave) -> None:
    feed = session.feeds.get(names.normal(envelope.log))
    if feed is None:
        _refuse(session, envelope.request, ErrorCode.NOT_A_MEMBER)
        return
    leave(hub, session, feed)
    session.answer(pack(Left(envelope.request, feed.log)))


def leave(hub: Hub, session: Session, feed: Feed) -> None:
    """End a session's membership; also called when its connection ends."""
    feed.remove(session, session.name)
    del session.feeds[feed.log]
    hub.presence_changed(feed)


def _who(hub: Hub, session: Session, who: Who) -> None:
    log = names.normal(who.log)
    if log not in session.feeds:
        _refuse(session, who.request, ErrorCode.NOT_A_MEMBER)
        return

    def said(answer: BusMembers) -> None:
        _, incarnation, version, total, listed = answer
        session.answer(pack(Members(who.request, log, incarnation, version, total, listed)))
        session.unblock()

    # Changes of this turn first, so that the client finds itself in the answer.
    hub.settle_presence()
    session.block()  # one question at a time: answers of a full room are large
    if not hub.waits.ask(log, hub.routes.port_of(log), said):
        _refuse(session, who.request, ErrorCode.BUSY, RETRY_MS)
        session.unblock()


def _history(hub: Hub, session: Session, history: History) -> None:
    log = names.normal(history.log)
    feed = session.feeds.get(log)
    if feed is None:
        _refuse(session, history.request, ErrorCode.NOT_A_MEMBER)
        return
    count = min(history.count, limits.PAGE_ENTRIES_MAX)
    if count == 0:
        _refuse(session, history.request, ErrorCode.BAD_REQUEST)
        return
    # Rationed with those who catch up; what the client asks next waits.
    session.block()

    def answer() -> None:
        if not session.ended:
            _page(hub, session, feed, history, count)
            session.unblock()

    hub.catchup.ask(answer)
    hub.wake()


def _page(hub: Hub, session: Session, feed: Feed, history: History, count: int) -> None:
    log = feed.log
    reader = hub.reader_of(log)
    try:
        if history.forward:
            page = reader.read(log, history.seq, feed.seq, limits.PAGE_BYTES_MAX, count)
        else:
            before = min(history.seq or feed.seq + 1, feed.seq + 1)
            page = reader.read_back(log, before, count, limits.PAGE_BYTES_MAX)
    except StoreError:
        _refuse(session, history.request, ErrorCode.UNAVAILABLE, RETRY_MS)
        return
    rows = page.rows
    next_seq = history.seq
    if rows:
        next_seq = rows[-1][0] if history.forward else rows[0][0]
    packed = [row[1] for row in rows]
    session.answer(pack_page(history.request, log, next_seq, page.end, packed))


def _followable(session: Session, request: int, log: str) -> bool:
    if names.is_room(log):
        return True
    if names.is_inbox(log):
        _refuse(session, request, ErrorCode.NOT_SUPPORTED, 0, "direct messages come later")
    else:
        _refuse(session, request, ErrorCode.NAME_INVALID, 0, "no legal name of a room")
    return False


# --- sending ----------------------------------------------------------------------------------
def _send(hub: Hub, session: Session, send: Send) -> None:
    log = send.log
    if not names.is_room(log):  # the canonical form only: an id belongs to one spelling
        code = ErrorCode.NOT_SUPPORTED if names.is_inbox(log) else ErrorCode.NAME_INVALID
        session.answer(pack(Refused(log, send.counter, int(code), 0, "")))
        return
    if send.kind != Kind.MESSAGE:
        session.answer(
            pack(Refused(log, send.counter, int(ErrorCode.NOT_SUPPORTED), send.kind, "kind"))
        )
        return
    session.submit(
        Submission(
            log=log,
            sender=session.name,
            key_id=b"",
            producer=session.producer,
            counter=send.counter,
            kind=send.kind,
            content_type=send.content_type,
            body=send.body,
        )
    )


def _unknown(hub: Hub, session: Session, unknown: Unknown) -> None:
    _refuse(session, 0, ErrorCode.UNKNOWN_OPERATION, unknown.op)


# The values take the envelope type of their key; a dict cannot say that.
_OPERATIONS: Final[dict[type, Callable[[Hub, Session, Any], None]]] = {
    Join: _join,
    Leave: _leave,
    Send: _send,
    Who: _who,
    History: _history,
    Unknown: _unknown,
}
