"""HELLO: the client names itself and proves its key, and the name's home decides."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat import names
from relay.chat.ids import NO_ROOT, producer_of
from relay.chat.rooms.rights import Actor
from relay.server.metrics import Budget
from relay.server.worker.connection.stages import Stage
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import NextKey, Welcome
from relay.wire.login import Operation
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Hello

_NAMES: Final = {int(code): code.name for code in ErrorCode}
log = logging.getLogger("relay.worker")


async def hello(session: Session, hello: Hello) -> None:
    """Check the proof, claim the name, wait for its home, and send WELCOME."""
    services = session.services
    name = names.normal(hello.name)
    guest = names.is_guest(name)
    wrong = names.person_error(name) or names.display_error(hello.display)
    if wrong:
        _refuse(session, name, ErrorCode.NAME_INVALID, wrong)
        return
    if guest:
        if not services.guests:
            _refuse(session, name, ErrorCode.NO_GUESTS, "")
            return
        key = b""  # a guest has no device, regardless of any proof
    else:
        key = hello.key
        if not session.channel.proves(Operation.LOGIN, key, name, hello.signature):
            _refuse(session, name, ErrorCode.KEY_REFUSED, "the key or its signature is wrong")
            return

    session.enter(Stage.LOGIN)
    session.subscriptions.display = hello.display
    claim = services.claims.claim(name, hello.secret, session.since_us, key, session)
    session.claim = claim  # released with the session, however it ends
    assert claim.reply is not None, "no answer arrives inside the call that asks"
    grant = await claim.reply
    if grant.code == ErrorCode.UNAVAILABLE:
        session.close(CloseCode.LOGIN_UNAVAILABLE, services.overloaded_retry_s, detail=grant.text)
        return
    if grant.code:
        _refuse(session, name, grant.code, grant.text)
        return

    budgets = services.budgets
    budget = budgets.admission.login_refusal(session.source)
    if budget is None and grant.root and not session.source.exempt and budgets.users.is_full(name):
        budget = Budget.CONNECTIONS_PER_USER
    # checked only now: the slot may have belonged to the client's earlier connection
    if budget is not None:
        budgets.refusals.count(budget, session.source.name, services.clock())
        session.close(CloseCode.OVERLOADED, services.overloaded_retry_s, detail=budget)
        return

    session.producer = producer_of(grant.root or NO_ROOT, name, hello.secret)
    log.debug("logged_in", extra={"connection": session.id, "handle": name, "peer": session.peer})
    session.logged_in(Actor(name, grant.root, grant.operator), claim.key_id)
    session.answer(
        pack(
            Welcome(
                name,
                services.wall_clock_ns() // 1_000_000,
                limits.BODY_BYTES_MAX,
                limits.SENDS_UNACKNOWLEDGED_MAX,
                services.agent_name,
                grant.root,
            )
        )
    )
    if services.announcement.next_hash:
        session.answer(pack(NextKey(services.announcement.next_hash)))


def _refuse(session: Session, name: str, code: int, text: str) -> None:
    session.refuse(0, code, 0, text)
    asked = name if names.is_handle(name) or names.is_guest(name) else "a name"
    session.close(CloseCode.NAME_REFUSED, detail=f"{asked}: {_NAMES.get(code, code)}")
