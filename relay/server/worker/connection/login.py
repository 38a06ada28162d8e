"""HELLO: a client names itself, and the name's home decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay import limits
from relay.chat import names
from relay.chat.ids import producer_of
from relay.server.worker.connection.stages import Stage
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Welcome, pack

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Session
    from relay.wire.envelopes import Hello


async def hello(session: Session, hello: Hello) -> None:
    """Claim a name, wait for its home, and welcome the client."""
    services = session.services
    name = names.normal(hello.name)
    if not names.is_handle(name) or names.is_reserved(name):
        _refuse(session, ErrorCode.NAME_INVALID, "a-z, 0-9, _ and -, 2 to 32 characters")
        return
    if not names.is_display(hello.display):
        _refuse(session, ErrorCode.NAME_INVALID, "the display name has characters not allowed")
        return

    session.enter(Stage.LOGIN)
    session.producer = producer_of(name, hello.secret)
    session.subscriptions.display = hello.display
    claim = services.claims.claim(name, hello.secret, session.since_us, session.replaced)
    session.claim = claim  # released with the session, however it ends
    if not await claim.reply:
        _refuse(session, ErrorCode.NAME_TAKEN, "")
        return

    budget = services.budgets.admission.login_refusal(session.account)
    if budget is not None:  # only now: the slot may have been that of an earlier connection of its
        services.budgets.refusals.count(budget, session.account.source, services.clock())
        session.close(CloseCode.OVERLOADED, services.overloaded_retry_s, detail=budget)
        return

    session.logged_in(name)
    session.answer(
        pack(
            Welcome(
                name,
                services.wall_clock_ns() // 1_000_000,
                limits.BODY_BYTES_MAX,
                limits.SENDS_UNACKNOWLEDGED_MAX,
                services.agent_name,
            )
        )
    )


def _refuse(session: Session, code: ErrorCode, text: str) -> None:
    session.refuse(0, code, 0, text)
    session.close(CloseCode.NAME_REFUSED, detail=code.name)
