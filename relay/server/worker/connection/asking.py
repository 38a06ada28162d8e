"""Asking the home of an account or of an invitation, and waiting for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.bus.messages import Answered
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session


async def asked(session: Session, log: str, by: str, key_id: bytes, content: bytes) -> Answered:
    """Return the home's answer to a request (``chat.accounts.requests``).

    Args:
        session: whose request it is; it waits, and what it asks next.
        log: of the account or the invitation.
        by: the handle that asks.
        key_id: of the device that asks.
        content: the packed request.
    """
    reply = session.services.queries.ask(log, by, key_id, content)
    if reply is None:
        return Answered(0, int(ErrorCode.BUSY), "too much is asked at once", b"")
    return await reply
