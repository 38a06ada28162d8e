"""PROVE: a client requests proof that the announced key follows the server's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay import limits
from relay.server.worker.member.reply import Reply
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Done
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Prove

PROOFS_MAX: Final = 8
"""Per connection. One is enough, but a busy key agent may have to be asked again."""


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
    announced.agent.prove(prove.challenge, session.peer).then(
        lambda answer: reply.resolve(answer.secret)
    )
    proof = await reply
    if proof:
        session.answer(pack(Done(prove.request, proof)))
    else:
        session.refuse(prove.request, ErrorCode.BUSY, limits.RETRY_MS)
