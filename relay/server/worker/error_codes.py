"""Maps errors of the store and refusals of rooms to the protocol's error codes."""

from __future__ import annotations

from typing import Final

from relay.chat.rooms.refusal import Reason
from relay.store.errors import LogDamaged, StoreCorrupt, StoreError, StoreFull
from relay.wire.codes import ErrorCode

ROOM_CODES: Final = {
    Reason.BANNED: ErrorCode.BANNED,
    Reason.KICKED_OUT: ErrorCode.KICKED_OUT,
    Reason.MUTED: ErrorCode.MUTED,
    Reason.MEMBERS_ONLY: ErrorCode.MEMBERS_ONLY,
    Reason.READ_ONLY: ErrorCode.READ_ONLY,
    Reason.NOT_ALLOWED: ErrorCode.NOT_ALLOWED,
    Reason.NO_SUCH_ROOM: ErrorCode.NO_SUCH_ROOM,
    Reason.NO_SUCH_ENTRY: ErrorCode.NO_SUCH_ENTRY,
    Reason.EXISTS: ErrorCode.ROOM_EXISTS,
    Reason.CHANGED: ErrorCode.CHANGED,
    Reason.BAD_REQUEST: ErrorCode.BAD_REQUEST,
    Reason.LIMIT: ErrorCode.LIMIT,
    Reason.DAMAGED: ErrorCode.DAMAGED,
}

assert set(ROOM_CODES) == set(Reason)
NOT_CONFIRMED: Final = "the rights of the requester cannot be read now"
"""The text of UNAVAILABLE if the requester may be an operator (``home.accounts.operators``)."""


def code_of(error: StoreError) -> ErrorCode:
    """Return the code for a store error: DAMAGED is final, UNAVAILABLE may be retried."""
    damaged = isinstance(error, StoreCorrupt | LogDamaged)
    return ErrorCode.DAMAGED if damaged else ErrorCode.UNAVAILABLE


def unavailable_text(error: StoreError) -> str:
    """Return the text that clients get with a retryable error. Details go to the log only."""
    return "the disk is full" if isinstance(error, StoreFull) else "the store is unavailable"
