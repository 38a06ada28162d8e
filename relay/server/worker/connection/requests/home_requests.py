"""Requests to the home of an account, an invitation or a room, and their answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from relay import limits
from relay.bus.messages import Answered
from relay.server.worker.connection.requests.charges import BYTES_PER_UNIT
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Done
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.chat.rooms.rights import Actor
    from relay.server.worker.connection.session import Session
    from relay.server.worker.member.reply import Reply

log = logging.getLogger("relay.worker")


async def asked(
    session: Session,
    log_name: str,
    by: Actor,
    key_id: bytes,
    content: bytes,
    subject: bytes = b"",
    identity: bytes = b"",
) -> Answered:
    """Return the home's answer to a request (``chat.accounts.requests``, ``chat.rooms.requests``).

    Args:
        session: makes the request; its later operations wait for the answer.
        log_name: of the account, the invitation or the room.
        by: the user that makes the request.
        key_id: of the device that makes it.
        content: the packed request.
        subject: the root of the account that the request names.
        identity: of the room that is meant.
    """
    log.debug("request_asked", extra={"connection": session.id, "log": log_name})
    reply = session.services.queries.ask(
        log_name, by, key_id, content, subject, session.id, identity
    )
    if reply is None:
        return Answered(0, int(ErrorCode.BUSY), "too many requests at once", b"")
    return await reply


def turn_of(session: Session, *, much: bool | None = None) -> Reply[None]:
    """Return an awaitable for a session's turn among the requests that read pages.

    Requests of heavy users wait with other heavy users and do not delay light ones.

    Args:
        session: makes the request.
        much: whether the session was a heavy user when the request began; None: it begins now.
    """
    catchup = session.services.following.catchup
    if session.reading.is_heavy if much is None else much:
        return catchup.turn_of_heavy()
    return catchup.turn()


def pass_on(session: Session, number: int, answer: Answered) -> None:
    """Send the home's answer to the client."""
    if answer.code:
        refuse(session, number, answer)
    else:
        done(session, number, answer.content)


def done(session: Session, number: int, content: bytes) -> None:
    """Send the answer to a request, and charge its size."""
    session.sends.owe_work(len(content) // BYTES_PER_UNIT)
    session.answer(pack(Done(number, content)))


def refuse(session: Session, number: int, answer: Answered) -> None:
    """Send the home's refusal to the client, with the time of a retry."""
    later = answer.code in (ErrorCode.BUSY, ErrorCode.UNAVAILABLE)
    session.refuse(number, answer.code, limits.RETRY_MS if later else 0, answer.text)
