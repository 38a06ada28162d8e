"""ROOM: requests about rooms. The rooms' homes decide what is allowed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from relay import limits
from relay.chat import names
from relay.chat.partition import partition_of
from relay.chat.rooms import requests
from relay.errors import EnvelopeError
from relay.server.worker.connection.requests.charges import CHANGE_UNITS, accepted, pays
from relay.server.worker.connection.requests.devices import root_of
from relay.server.worker.connection.requests.former import former_author
from relay.server.worker.connection.requests.home_requests import asked, pass_on
from relay.server.worker.connection.requests.room_lists import list_own, list_rooms
from relay.server.worker.connection.requests.unreadable import refuse_unreadable
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Room


async def room(session: Session, room: Room) -> None:
    """Forward a request about a room to its home."""
    number = room.request
    request: requests.Request | None = None
    with contextlib.suppress(EnvelopeError):
        request = requests.unpack(room.content).request
    if request is None or type(request) in requests.BETWEEN_WORKERS:
        session.refuse(number, ErrorCode.BAD_REQUEST, 0, "an unknown request about a room")
        return
    if isinstance(request, requests.List):
        await list_rooms(session, number, request)
        return
    if isinstance(request, requests.Mine):
        await list_own(session, number, request.after)
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
            subject = root_of(session, handle)
        except StoreError as error:
            refuse_unreadable(session, number, partition_of(names.INBOX_PREFIX + handle), error)
            return
        if not subject:
            session.refuse(number, ErrorCode.NOT_REGISTERED, 0, f"there is no user {handle}")
            return
    elif isinstance(request, requests.Redact):
        former = former_author(session, log, request.seq)
        if former is None:
            session.refuse(number, ErrorCode.UNAVAILABLE, limits.RETRY_MS)
            return
        subject = former
    answer = await asked(
        session, log, session.actor, session.key_id, room.content, subject, room.identity
    )
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
