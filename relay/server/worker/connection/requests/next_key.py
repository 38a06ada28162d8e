"""PROVE: a client requests proof that the announced key follows the server's."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.errors import RelayError
from relay.server.worker.member.reply import Reply
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Done
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Prove

PROOFS_MAX: Final = 8
"""Per connection. One is enough, but a busy key agent may have to be asked again."""
log = logging.getLogger("relay.worker")


async def prove(session: Session, prove: Prove) -> None:
    """Answer with the key agent's proof that the announced key follows the server's."""
    announced = session.services.announcement
    session.proofs += 1
    if session.proofs > PROOFS_MAX:
        session.close(CloseCode.LIMIT, detail="too many proofs")
        return
    if not announced.next_hash:
        session.refuse(prove.request, ErrorCode.NOT_SUPPORTED, 0, "no key is announced")
        return
    reply: Reply[bytes] = Reply()
    future = announced.agent.prove(prove.challenge, session.peer)

    def answered(done: asyncio.Future[bytes]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, RelayError):
            log.error("proof_failed", exc_info=error)
        reply.resolve(b"" if done.cancelled() or error is not None else done.result())

    future.add_done_callback(answered)
    proof = await reply
    if proof:
        session.answer(pack(Done(prove.request, proof)))
    else:
        session.refuse(prove.request, ErrorCode.BUSY, limits.RETRY_MS)
