"""Requests to the home of an account, an invitation or a room, and their answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay import limits
from relay.bus.messages import Answered
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.chat.rooms.rights import Actor
    from relay.server.worker.connection.session import Session
    from relay.server.worker.member.reply import Reply

log = logging.getLogger("relay.worker")


async def asked(
    session: Session, log_name: str, by: Actor, key_id: bytes, content: bytes, subject: bytes = b""
) -> Answered:
    """Return the home's answer to a request (``chat.accounts.requests``, ``chat.rooms.requests``).

    Args:
        session: whose request it is; it waits, and what it asks next.
        log_name: of the account, the invitation or the room.
        by: who asks.
        key_id: of the device that asks.
        content: the packed request.
        subject: the root of the account that it names.
    """
    log.debug("request_asked", extra={"connection": session.id, "log": log_name})
    reply = session.services.queries.ask(log_name, by, key_id, content, subject, session.id)
    if reply is None:
        return Answered(0, int(ErrorCode.BUSY), "too much is asked at once", b"")
    return await reply


def turn_of(session: Session, *, much: bool | None = None) -> Reply[None]:
    """Return what a request awaits that reads a page: its turn among the readers of the worker.

    Who asks for much waits with the crowd, and others do not wait for him.

    Args:
        session: whose request it is.
        much: whether that was so when the request began; None: it begins now.
    """
    catchup = session.services.following.catchup
    if session.reading.asks_much if much is None else much:
        return catchup.turn_of_crowd()
    return catchup.turn()


def pass_on(session: Session, number: int, answer: Answered) -> None:
    """Tell the client what the home has decided about its request."""
    if answer.code:
        refuse(session, number, answer)
    else:
        session.answer(pack(Done(number, answer.content)))


def refuse(session: Session, number: int, answer: Answered) -> None:
    """Tell the client why not, and when to ask again."""
    later = answer.code in (ErrorCode.BUSY, ErrorCode.UNAVAILABLE)
    session.refuse(number, answer.code, limits.RETRY_MS if later else 0, answer.text)
