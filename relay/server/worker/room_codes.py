"""The error code of the protocol for each reason of a refusal in a room."""

from __future__ import annotations

from typing import Final

from relay.chat.rooms.refusal import Reason
from relay.wire.codes import ErrorCode

CODES: Final = {
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

assert set(CODES) == set(Reason)
