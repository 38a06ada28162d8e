"""Asking the home of an account, of an invitation or of a room, and waiting for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.bus.messages import Answered
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.chat.rooms.rights import Actor
    from relay.server.worker.connection.session import Session


async def asked(
    session: Session, log: str, by: Actor, key_id: bytes, content: bytes, subject: bytes = b""
) -> Answered:
    """Return the home's answer to a request (``chat.accounts.requests``, ``chat.rooms.requests``).

    Args:
        session: whose request it is; it waits, and what it asks next.
        log: of the account, the invitation or the room.
        by: who asks.
        key_id: of the device that asks.
        content: the packed request.
        subject: the root of the account that it names.
    """
    reply = session.services.queries.ask(log, by, key_id, content, subject)
    if reply is None:
        return Answered(0, int(ErrorCode.BUSY), "too much is asked at once", b"")
    return await reply
