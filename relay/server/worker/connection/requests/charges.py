"""The cost of requests, in units of about 0.1 ms of worker time, and charging it.

A request is charged a fixed price in advance (``commands``). What it reads, and what it answers, is
owed when that is known, and delays the next request.

| request | price | owed |
|---|---|---|
| JOIN, LEAVE | 1 | by the bytes of the state of a room that may just have been changed |
| WHO | 2 | by the names, 1 at most |
| HISTORY | 4 | by the rows, and as much again for checking them: 62 at most |
| DEVICES | 4 | by the bytes of the chain and of later control entries: by 256 links about 50 |
| ACCOUNT | 2; a change 20 more | by the bytes of the answer: 32 at most |
| PROVE | 10 | |
| ROOM | 2; a change 20 more | as ACCOUNT; by the chain of who it names; by the rooms of a list |
| SEARCH | 10 | by the messages found, 48 at most |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.server.worker.connection.budgets.spending import Refusal
    from relay.server.worker.connection.session import Operation, Session
    from relay.server.worker.member.reply import Request as Awaited

CHANGE_UNITS: Final = 20
"""For a change of a room or an account: it needs its own commit, which waits for the disk."""
ROOM_UNITS: Final = 1
"""For each room that is examined for a list."""
ROWS_PER_UNIT: Final = 32
"""For rows of history: about 3 µs each, for reading, sealing and writing. Checking one costs as
much again."""
NAMES_PER_UNIT: Final = 128
"""For the names in an answer to WHO: packing them at both ends of a link, and sealing them."""
FOUND_PER_UNIT: Final = 2
"""For messages found by a search: reading each and its last edit."""
BYTES_PER_UNIT: Final = 2048
"""For other stored data that is read and unpacked, and for answers that are made of it."""


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
