"""SEARCH: finds messages by their words in a log that the client follows.

The index (``store.search``) only returns sequence numbers. The answer is read from the log, by the
same rules as a page of history. So messages that were erased or may not be read are not found, even
if they are still in the index.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat import names
from relay.chat.entries import Kind
from relay.chat.partition import partition_of
from relay.server.metrics import Searched
from relay.server.worker.connection.requests.charges import FOUND_PER_UNIT
from relay.server.worker.connection.requests.history import log_and_peer
from relay.server.worker.connection.requests.home_requests import turn_of
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.server.worker.stored import stored_entry
from relay.store.errors import LogDamaged, StoreError
from relay.store.search.words import match_of
from relay.wire.codes import ErrorCode
from relay.wire.packing import pack_found

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.server.worker.member.feed import Feed
    from relay.store.search.finder import Found
    from relay.wire.envelopes import Search

READ_PER_TURN: Final = 16
"""Messages to read in one step: about 0.5 ms."""
CHANGES_READ_MAX: Final = 16
"""Entries above the indexed ones that are read, to find out whether they are changes of an account:
registering takes one, each device another."""


async def search(session: Session, search: Search) -> None:
    """Answer with one page. The index is searched in a thread."""
    number, counts = search.request, session.services.counts
    searching = session.services.searching
    if searching is None or not searching.on:
        session.refuse(number, ErrorCode.NOT_SUPPORTED, 0, "this server has no search")
        return
    asked = names.normal(search.log)
    log, peer = log_and_peer(session, asked)
    feed = session.subscriptions.get(log)
    if feed is None:
        session.refuse(number, ErrorCode.NOT_A_MEMBER)
        return
    match = match_of(search.text)
    count = min(search.count, limits.SEARCH_COUNT_MAX)
    if count == 0 or not match:
        session.refuse(number, ErrorCode.BAD_REQUEST, 0, "there is no word to search for")
        return
    before = min(search.before or feed.seq + 1, feed.seq + 1)
    much = session.reading.is_heavy
    reply = searching.find(log, match, feed.room.floor, before, count)
    if reply is None:
        counts.searches[Searched.REFUSED] += 1
        session.refuse(number, ErrorCode.BUSY, limits.RETRY_MS, "too many searches at once")
        return
    found = await reply

    await turn_of(session, much=much)
    try:
        if found is None:
            raise StoreError("the index")
        page = await _page(session, log, feed, found, peer, much=much)
    except StoreError as error:
        counts.searches[Searched.FAILED] += 1
        refuse_unreadable(session, number, partition_of(log), error)
        return
    if page is None:
        session.refuse(number, ErrorCode.NOT_A_MEMBER)  # removed from the room meanwhile
        return
    rows, next_seq, end = page
    counts.searches[Searched.FOUND if rows else Searched.NOTHING] += 1
    examined = _examined(session, log, min(found.indexed, feed.seq), feed.seq)
    session.answer(pack_found(number, asked, next_seq, end, examined, rows))


def _examined(session: Session, log: str, indexed: int, head: int) -> int:
    """Return up to which entry nothing was left out.

    Changes of an account are indexed later (``process.storage.indexing``): they have no words.
    """
    if indexed >= head or not names.is_inbox(log):
        return indexed
    session.sends.owe_work(CHANGES_READ_MAX // FOUND_PER_UNIT)
    try:
        reader = session.services.reader_of(log)
        page = reader.read(log, indexed, head, limits.PAGE_BYTES_MAX, CHANGES_READ_MAX)
        for seq, packed in page.rows:
            if stored_entry(log, packed).kind != Kind.SYSTEM:
                return indexed
            indexed = seq
    except StoreError:
        return indexed  # somebody who reads that part is told of it
    return head if page.end else indexed


async def _page(
    session: Session, log: str, feed: Feed, found: Found, peer: str, *, much: bool
) -> tuple[list[bytes], int, bool] | None:
    """Return the current content of what was found, where to continue, and whether this is the end.

    A few messages are read at a time, in turn with readers of pages. If any message was erased
    meanwhile, reading starts again and is done in one step. None: the client no longer follows the
    log.

    Raises:
        StoreError: the log cannot be read.
    """
    erasures_of, before = session.services.following.catchup.erasures, None
    while True:
        at_once, before = before is not None, erasures_of(log)
        rows: list[bytes] = []
        size = read = 0
        next_seq, end = found.next, found.end
        if session.subscriptions.get(log) is not feed:
            return None
        floor, head = feed.room.floor, feed.seq
        is_edit = partial(_is_edit, log)
        reader = session.services.reader_of(log)
        reader.floor(log)  # otherwise an unreadable log would look like one without matches
        for seq in found.seqs:
            if not floor < seq <= head:
                continue
            read += 1
            if read % READ_PER_TURN == 0:
                session.sends.owe_work(READ_PER_TURN // FOUND_PER_UNIT)
                if not at_once:
                    await turn_of(session, much=much)
                    reader = session.services.reader_of(log)
            try:
                row = _as_it_is_now(log, reader.read_edited(log, seq, head, is_edit), peer)
            except LogDamaged as error:
                session.services.damage.report_log(error)
                continue  # of the one message
            if row is None:
                continue
            size += len(row)
            if size > limits.PAGE_BYTES_MAX and rows:
                next_seq, end = seq + 1, False  # starts the next page
                break
            rows.append(row)
        session.sends.owe_work(read % READ_PER_TURN // FOUND_PER_UNIT)
        if before == erasures_of(log):
            return (rows, next_seq, end) if session.subscriptions.get(log) is feed else None


def _as_it_is_now(log: str, packed: list[bytes], peer: str) -> bytes | None:
    """Return the entry with the message's current text: the message or its last edit. None: hide
    it.

    Args:
        log: which it is in.
        packed: the message, and its last edit if it has one; empty if it does not exist.
        peer: only messages of this user; empty: of all.
    """
    if not packed:
        return None
    message = stored_entry(log, packed[0])
    if message.kind != Kind.MESSAGE or (peer and peer not in (message.sender, message.to)):
        return None
    return packed[-1]


def _is_edit(log: str, packed: bytes) -> bool:
    return stored_entry(log, packed).kind == Kind.EDIT
