"""The cost of requests, in units of about 0.1 ms of worker time, and charging it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Operation, Session
    from relay.server.worker.connection.spending import Refusal
    from relay.server.worker.member.reply import Request as Awaited

CHANGE_UNITS: Final = 20
"""Of a room or an account: a commit of its own that waits for the disk."""
ROOM_UNITS: Final = 1
"""Of each room that is looked at for a list."""


class _Numbered(Protocol):
    """An envelope that has an answer."""

    @property
    def request(self) -> int:
        """Its number."""


def charged(operation: Operation, units: int) -> Operation:
    """Return an operation that is done only if its cost is paid for."""

    def pay(session: Session, envelope: _Numbered) -> Awaited | None:
        return operation(session, envelope) if pays(session, envelope.request, units) else None

    return pay


def pays(session: Session, number: int, units: int) -> bool:
    """Charge a request; False: it was refused, and is told when to come again."""
    return accepted(session, number, session.sends.spend_work(units))


def accepted(session: Session, number: int, refusal: Refusal | None) -> bool:
    """Tell whether a request is within its budgets; if not, refuse it."""
    if refusal is None:
        return True
    code = ErrorCode.LIMIT if refusal.most else ErrorCode.BUSY
    session.refuse(number, code, refusal.most or refusal.wait_ms, refusal.text)
    return False
