"""ROOM: lists the rooms that a user may see, and those in which a user has a role.

The cost of a list is the rooms examined, not the rooms returned: hidden rooms are charged like the
others, and one request skips at most ``HIDDEN_MAX`` of them. The client is then told to retry, and
this worker remembers where to continue: a position among hidden rooms would reveal a name.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat import names
from relay.chat.entries import Kind
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import shown
from relay.chat.rooms.events import Kind as RoomKind
from relay.chat.rooms.events import Role
from relay.server.worker.connection.listings import Listings
from relay.server.worker.connection.requests.charges import ROOM_UNITS
from relay.server.worker.connection.requests.home_requests import turn_of
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.server.worker.error_codes import unavailable_text
from relay.server.worker.stored import readable, stored_room
from relay.store.errors import LogDamaged, StoreCorrupt, StoreError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.chat.entries import Head
    from relay.chat.rooms import requests
    from relay.chat.rooms.state import Room
    from relay.server.worker.connection.session import Session

STATES_BYTES: Final = 262_144
"""Size of the room states that one answer may examine: about 3 ms."""
HIDDEN_MAX: Final = 1000
"""Hidden rooms that one request may skip: 20 reads of about 3 ms each."""


async def list_own(session: Session, number: int, after: str) -> None:
    """Answer with the rooms in which the user has a role, in all partitions.

    Unread messages are not stored; they are counted from the user's read mark.
    """
    await turn_of(session)
    actor, some, asked_after = session.actor, shown.ROOMS_PER_ANSWER, after
    try:
        if actor.root:
            of_partitions = session.services.damage.answers(
                lambda reader: reader.memberships(actor.handle, actor.root, asked_after, some + 1)
            )
            found = sorted(itertools.chain.from_iterable(of_partitions))
        else:
            found = []
        own: list[shown.Own] = []
        bytes_left = STATES_BYTES
        for name in found[:some]:
            head = session.services.reader_of(name).head(name)  # first, so that rights are newer
            packed = session.services.reader_of(name).state(name)
            try:
                own += await _own(session, name, stored_room(name, packed), head)
            except LogDamaged as error:
                session.services.damage.report_log(error)
                own.append(_unreadable(name, head))
            bytes_left -= len(packed)
            session.sends.owe_work(ROOM_UNITS)
            after = name
            if bytes_left <= 0:
                break
    except StoreCorrupt:
        session.refuse(number, ErrorCode.DAMAGED)
        return
    except StoreError as error:
        session.refuse(number, ErrorCode.UNAVAILABLE, limits.RETRY_MS, unavailable_text(error))
        return
    session.answer(pack(Done(number, shown.pack_own(own, after, not found or after == found[-1]))))


def _unreadable(name: str, head: Head) -> shown.Own:
    """Return a damaged room, of which only the user's role is known.

    It is listed because it still exists; opening it reports the damage.
    """
    room = shown.Listed(name, RoomKind.PRIVATE, "", "", False, Role.MEMBER, 0, head.seq, 0)
    return shown.Own(room, bytes(limits.EPOCH_BYTES), 0, 0)


async def _own(session: Session, name: str, room: Room, head: Head) -> list[shown.Own]:
    """Return a room with its unread count, or an empty list if the user may no longer see it."""
    reader, actor = session.services.reader_of(name), session.actor
    listed = shown.listed(name, room, head.seq, actor)
    if listed is None or listed.role is Role.NONE:
        return []
    inbox = names.INBOX_PREFIX + actor.handle
    mark = session.services.reader_of(inbox).mark(inbox, name)
    floor = reader.resume(name, mark, head).after if mark.seq else 0
    read = min(shown.unread_after(room, actor.handle, floor), head.seq)
    unread = await _unread(session, name, read, head.seq)
    return [shown.Own(listed, mark.epoch, mark.seq, unread)]


async def _unread(session: Session, name: str, after: int, upto: int) -> int:
    """Count other users' messages among a room's newest entries, in turn with readers of pages.

    Author and kind are stored only in the entry, so the entries are read.
    """
    own, count = session.actor.handle, 0
    after = max(after, upto - shown.UNREAD_LOOKED_AT)
    while after < upto:
        page = session.services.reader_of(name).read(name, after, upto, limits.PAGE_BYTES_MAX)
        entries = readable(name, page.rows)  # readers get a gap in place of others
        count += sum(one.kind == Kind.MESSAGE and one.sender != own for one in entries.values())
        if page.end:
            break
        after = page.rows[-1][0]
        session.sends.owe_work(ROOM_UNITS)
        await turn_of(session)
    return count


async def list_rooms(session: Session, number: int, request: requests.List) -> None:
    """Answer with rooms of one partition, in turn with readers of pages.

    The last room in an answer is where the next request continues, so it must be one that the user
    may see: the name of a hidden room would leak. Hidden rooms are therefore skipped until there is
    a visible one. A room that cannot be read is reported in place of the end of the list.
    """
    index, asked_after = request.partition, request.after
    assert index < PARTITIONS
    if session.listings is None:
        session.listings = Listings()
    listings, clock = session.listings, session.services.clock
    looked, damaged = listings.take(index, asked_after, clock())
    visible: list[shown.Listed] = []
    found: list[tuple[str, bytes, int]] = []
    passed = 0
    while not visible:
        if passed >= HIDDEN_MAX:
            listings.put(index, asked_after, looked, clock())
            session.refuse(number, ErrorCode.BUSY, limits.RETRY_MS, "there is more to look at")
            return
        await turn_of(session)
        try:
            reader = session.services.reader_at(index)
            found = reader.states(looked, shown.ROOMS_PER_ANSWER, STATES_BYTES)
        except StoreError as error:
            refuse_unreadable(session, number, index, error)
            return
        if not found:
            break
        session.sends.owe_work(ROOM_UNITS * len(found))
        looked = found[-1][0]
        passed += len(found)
        for name, packed, seq in found:
            try:
                one = shown.listed(name, stored_room(name, packed), seq, session.actor)
            except LogDamaged as error:
                session.services.damage.report_log(error)
                damaged = True
                listings.put_damaged(index, clock())
                continue
            if one is not None:
                visible.append(one)
    if damaged and not found:
        session.refuse(number, ErrorCode.DAMAGED)
        return
    after = visible[-1].name if visible else asked_after
    session.answer(pack(Done(number, shown.pack_list(visible, after, not found))))
