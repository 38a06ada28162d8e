"""The cost of requests, in units of about 0.1 ms of worker time, and charging it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.session import Operation, Session
    from relay.server.worker.connection.spending import Refusal
    from relay.server.worker.member.reply import Request as Awaited

CHANGE_UNITS: Final = 20
"""For a change of a room or an account: it needs its own commit, which waits for the disk."""
ROOM_UNITS: Final = 1
"""For each room that is examined for a list."""


class _Numbered(Protocol):
    """An envelope that gets an answer."""

    @property
    def request(self) -> int:
        """Its request number."""


def charged(operation: Operation, units: int) -> Operation:
    """Return an operation that runs only if its cost can be paid."""

    def pay(session: Session, envelope: _Numbered) -> Awaited | None:
        return operation(session, envelope) if pays(session, envelope.request, units) else None

    return pay


def pays(session: Session, number: int, units: int) -> bool:
    """Charge a request. False: it was refused, and the client was told when to retry."""
    return accepted(session, number, session.sends.spend_work(units))


def accepted(session: Session, number: int, refusal: Refusal | None) -> bool:
    """Return True if a request is within its budgets; otherwise refuse it."""
    if refusal is None:
        return True
    code = ErrorCode.LIMIT if refusal.most else ErrorCode.BUSY
    session.refuse(number, code, refusal.most or refusal.wait_ms, refusal.text)
    return False
