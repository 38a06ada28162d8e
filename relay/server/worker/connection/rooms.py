"""ROOM: requests about rooms. The rooms' homes decide what is allowed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat import names
from relay.chat.accounts import links
from relay.chat.entries import Kind
from relay.chat.partition import PARTITIONS, partition_of
from relay.chat.rooms import requests, shown
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Role
from relay.errors import EnvelopeError
from relay.server.worker.connection.charges import CHANGE_UNITS, ROOM_UNITS, accepted, pays
from relay.server.worker.connection.devices import chain_of
from relay.server.worker.connection.former import former_author
from relay.server.worker.connection.home_requests import asked, pass_on, turn_of
from relay.server.worker.connection.unread import refuse_unread
from relay.server.worker.error_codes import unavailable_text
from relay.store.errors import StoreCorrupt, StoreError
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done
from relay.wire.packing import pack, unpack_entry

if TYPE_CHECKING:
    from relay.chat.entries import Head
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Room

STATES_BYTES: Final = 262_144
"""Size of the room states that one answer may examine: about 3 ms."""


async def room(session: Session, room: Room) -> None:
    """Forward a request about a room to its home."""
    number = room.request
    try:
        request, _ = requests.unpack(room.content)
    except EnvelopeError:
        session.refuse(number, ErrorCode.BAD_REQUEST, 0, "an unknown request about a room")
        return
    if isinstance(request, requests.Depart):
        session.refuse(number, ErrorCode.BAD_REQUEST, 0, "only the server may request that")
        return
    if isinstance(request, requests.List):
        await _list(session, number, request)
        return
    if isinstance(request, requests.Mine):
        await _mine(session, number, request.after)
        return
    log = names.normal(room.log)
    if not names.is_room(log):
        session.refuse(number, ErrorCode.NAME_INVALID, 0, "invalid room name")
        return
    if not isinstance(request, requests.Show) and not _pays(session, number, log, request):
        return
    subject = b""
    handle = requests.named(request)
    if names.is_handle(handle):
        try:
            chain = chain_of(session, handle)
        except StoreError as error:
            refuse_unread(session, number, partition_of(names.INBOX_PREFIX + handle), error)
            return
        if not chain:
            session.refuse(number, ErrorCode.NOT_REGISTERED, 0, f"nobody is called {handle}")
            return
        subject = links.parse(chain[0]).hash
    elif isinstance(request, requests.Redact):
        former = former_author(session, log, request.seq)
        if former is None:
            session.refuse(number, ErrorCode.UNAVAILABLE, limits.RETRY_MS)
            return
        subject = former
    answer = await asked(session, log, session.actor, session.key_id, room.content, subject)
    pass_on(session, number, answer)


def _pays(session: Session, number: int, log: str, request: requests.Request) -> bool:
    """Charge a change. False: it was refused."""
    if not pays(session, number, CHANGE_UNITS):
        return False
    if isinstance(request, requests.Create) and not accepted(
        session, number, session.sends.spend_room(log)
    ):
        return False
    size = len(requests.pack(request, 0))
    return accepted(session, number, session.sends.spend(log, size))


async def _mine(session: Session, number: int, after: str) -> None:
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
            # read first: the rights are as of later
            head = session.services.reader_of(name).head(name)
            packed = session.services.reader_of(name).state(name)
            own += await _own(session, name, rooms.unpack(packed), head)
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
    except EnvelopeError:
        session.refuse(number, ErrorCode.UNAVAILABLE, limits.RETRY_MS)
        return
    session.answer(pack(Done(number, shown.pack_own(own, after, not found or after == found[-1]))))


async def _own(session: Session, name: str, room: rooms.Room, head: Head) -> list[shown.Own]:
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
        entries = [unpack_entry(packed) for _, packed in page.rows]
        count += sum(one.kind == Kind.MESSAGE and one.sender != own for one in entries)
        if page.end:
            break
        after = entries[-1].seq
        session.sends.owe_work(ROOM_UNITS)
        await turn_of(session)
    return count


async def _list(session: Session, number: int, request: requests.List) -> None:
    """Answer with rooms of one partition, in turn with readers of pages.

    The last room in an answer is where the next request continues, so it must be one that the user
    may see: the name of a hidden room would leak. Hidden rooms are therefore skipped until there is
    a visible one.
    """
    assert request.partition < PARTITIONS
    visible: list[shown.Listed] = []
    found: list[tuple[str, bytes, int]] = []
    looked = request.after
    while not visible:
        await turn_of(session)
        try:
            reader = session.services.reader_at(request.partition)
            found = reader.states(looked, shown.ROOMS_PER_ANSWER, STATES_BYTES)
        except StoreError as error:
            refuse_unread(session, number, request.partition, error)
            return
        if not found:
            break
        session.sends.owe_work(ROOM_UNITS * len(found))
        looked = found[-1][0]
        listed = (
            shown.listed(name, rooms.unpack(packed), seq, session.actor)
            for name, packed, seq in found
        )
        visible = [one for one in listed if one is not None]
    after = visible[-1].name if visible else request.after
    session.answer(pack(Done(number, shown.pack_list(visible, after, not found))))
