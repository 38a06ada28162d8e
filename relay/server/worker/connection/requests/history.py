"""HISTORY and WHO: requests about a log that the client follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.chat import names
from relay.chat.partition import partition_of
from relay.server.worker.connection.requests.charges import NAMES_PER_UNIT, ROWS_PER_UNIT
from relay.server.worker.connection.requests.home_requests import turn_of
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.server.worker.member.routes import NO_HOME
from relay.server.worker.stored import damage_of, unreadable
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Members
from relay.wire.packing import pack, pack_page

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import History, Who


def log_and_peer(session: Session, log: str) -> tuple[str, str]:
    """Return the log that a request is about, and the peer whose messages it is limited to, or "".

    The second value is set for the user's own inbox, limited to the conversation with that peer.
    Nobody can read another user's inbox.
    """
    own = names.INBOX_PREFIX + session.actor.handle
    if names.is_inbox(log) and log != own:
        return own, log[len(names.INBOX_PREFIX) :]
    return log, ""


async def history(session: Session, history: History) -> None:
    """Answer with one page, in turn with the clients that catch up."""
    asked = names.normal(history.log)
    log, peer = log_and_peer(session, asked)
    feed = session.subscriptions.get(log)
    if feed is None:
        session.refuse(history.request, ErrorCode.NOT_A_MEMBER)
        return
    count = min(history.count, limits.PAGE_ENTRIES_MAX)
    if count == 0 or (peer and history.forward):
        session.refuse(history.request, ErrorCode.BAD_REQUEST)
        return

    await turn_of(session)
    if session.subscriptions.get(log) is not feed:
        session.refuse(history.request, ErrorCode.NOT_A_MEMBER)  # removed from the room meanwhile
        return
    floor = feed.room.floor
    reader = session.services.reader_of(log)
    try:
        if history.forward:
            after = max(history.seq, floor)
            page = reader.read(log, after, feed.seq, limits.PAGE_BYTES_MAX, count)
        else:
            before = min(history.seq or feed.seq + 1, feed.seq + 1)
            if peer:
                page = reader.read_direct(log, peer, before, count, limits.PAGE_BYTES_MAX)
            else:
                page = reader.read_back(log, before, count, limits.PAGE_BYTES_MAX)
    except StoreError as error:
        refuse_unreadable(session, history.request, partition_of(log), error)
        return
    rows = [row for row in page.rows if row[0] > floor]
    end = page.end or len(rows) < len(page.rows)
    next_seq = history.seq
    if rows:
        next_seq = rows[-1][0] if history.forward else rows[0][0]
    # Each time, unlike in ``member/catchup``: the page is for one reader, and old pages would take
    # the place of what all readers need.
    if bad := unreadable(log, rows):
        session.services.damage.report_log(damage_of(log, bad))
    packed = [row[1] for row in rows if row[0] not in bad]
    session.sends.owe_work((len(page.rows) + len(rows)) // ROWS_PER_UNIT)
    session.answer(pack_page(history.request, asked, next_seq, end, packed))


async def who(session: Session, who: Who) -> None:
    """Answer who follows a log, as known to its home. One request at a time: answers are large."""
    log = names.normal(who.log)
    if log not in session.subscriptions.by_log:
        session.refuse(who.request, ErrorCode.NOT_A_MEMBER)
        return
    if names.is_inbox(log):
        session.refuse(who.request, ErrorCode.NOT_SUPPORTED, 0, "an inbox has no members")
        return
    # Publish the changes of this turn first, so that the answer includes the client itself.
    session.services.following.presence.send()
    reply = session.services.queries.who(log)
    if reply is None:
        session.refuse(who.request, ErrorCode.BUSY, limits.RETRY_MS)
        return
    members = await reply
    if members is None:
        session.refuse(who.request, ErrorCode.UNAVAILABLE, limits.RETRY_MS, NO_HOME)
        return
    if log not in session.subscriptions.by_log:
        session.refuse(who.request, ErrorCode.NOT_A_MEMBER)  # removed from the room meanwhile
        return
    _, incarnation, version, total, listed = members
    session.sends.owe_work(len(listed) // NAMES_PER_UNIT)
    session.answer(pack(Members(who.request, log, incarnation, version, total, listed)))
