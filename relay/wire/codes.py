"""The codes that end a connection or refuse a request, each with its one-line explanation.

Close codes have two ranges: 1000-1999 means "reconnect", 2000-2999 is final. The tables of
docs/protocol.md are generated from this module (``python -m relay.wire.tables``).
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a connection ends. The range determines whether the client may reconnect by itself."""

    explanation: str

    def __new__(cls, number: int, explanation: str) -> CloseCode:
        """Create a member with its explanation."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.explanation = explanation
        return member

    GOING_AWAY = 1000, "the server or its worker is shutting down or restarting; connect again"
    INTERNAL = 1001, "the server failed on this connection; nothing acknowledged is lost"
    IDLE = 1002, "two pings went unanswered"
    TOO_SLOW = 1003, "nothing was read for too long; connect again and resume"
    OVERLOADED = (
        1004,
        "too many connections or registrations, or too much data waits; connect again later",
    )
    LOGIN_TIMEOUT = 1005, "no HELLO came in time"
    LOGIN_UNAVAILABLE = (
        1006,
        "the account cannot be looked up now; try again later, and tell the operator if this lasts",
    )

    NORMAL = 2000, "a clean end, as requested"
    PROTOCOL = 2001, "the peer broke the protocol"
    REPLACED = 2002, "the same client instance connected again"
    NAME_REFUSED = 2003, "the login was refused, with an ERROR before it"
    LIMIT = 2004, "a limit for one connection was exceeded on purpose or by a bug"
    KICKED = (
        2005,
        "an operator ended this connection, or disabled, reset, removed or demoted the account",
    )
    REVOKED = 2006, "this device no longer belongs to the account"


def may_reconnect(code: int | None) -> bool:
    """Return True if a client may reconnect by itself after this code (None: connection lost)."""
    return code is None or 1000 <= code < 2000


class Survives(IntEnum):
    """What an acknowledged message survives."""

    PROCESS = 0
    """The death of any process of the server."""
    POWER = 1
    """Also that of its machine: it was flushed to the disk before it was acknowledged."""


class ErrorCode(IntEnum):
    """Why a request or a send was refused; the connection continues."""

    explanation: str

    def __new__(cls, number: int, explanation: str) -> ErrorCode:
        """Create a member with its explanation."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.explanation = explanation
        return member

    BAD_REQUEST = 1, "a field has a value that this request does not allow"
    UNKNOWN_OPERATION = 2, "the server does not know this operation; arg is its number"
    NAME_INVALID = 3, "a user name, room name or display name is invalid or reserved"
    NAME_TAKEN = 4, "the name belongs to somebody else, or to another guest now"
    LIMIT = 5, "a limit of this connection, its account or its address is reached; arg is the limit"
    NOT_A_MEMBER = 6, "the connection has not joined this log"
    NOT_SUPPORTED = 7, "this version of the server does not support that"
    ID_CONFLICT = 8, "this counter was used for different content; arg is its sequence number"
    EXPECTED = 9, "counters were skipped: send again from arg"
    UNKNOWN_OUTCOME = (
        10,
        "the id is too old or unknown: the server cannot tell whether it was stored",
    )
    BUSY = 11, "the home cannot keep up, or too much is sent; arg is when to try again, in ms"
    UNAVAILABLE = 12, "the log's store cannot be used now; arg is when to try again, in ms"
    ALREADY_JOINED = 13, "the connection has joined this log before"
    NOT_REGISTERED = 14, "nobody has registered this name"
    KEY_REFUSED = 15, "the key is not a device of the account, or its signature is wrong"
    DISABLED = 16, "an operator has disabled the account"
    LOOKS_ALIKE = 17, "the name looks like an existing one"
    INVITATION_NEEDED = 18, "registering needs an invitation, or the given one is not valid"
    REGISTRATION_CLOSED = 19, "only operators add accounts to this server"
    CHANGED = 20, "what the request is about has changed meanwhile; look again"
    NOT_ALLOWED = 21, "this needs rights that the account does not have"
    NO_GUESTS = 22, "this server takes no guests: log in with an account"
    DAMAGED = 23, "the stored data is damaged: the server's operator has to repair it first"

    BANNED = 40, "banned from this room"
    MUTED = 41, "muted in this room: reading is allowed, writing is not"
    MEMBERS_ONLY = 42, "the room is private: a moderator or owner has to invite you first"
    READ_ONLY = 43, "the room is closed, or only its owners and moderators may write"
    NO_SUCH_ROOM = 44, "there is no such room (any more)"
    ROOM_EXISTS = 45, "a room of this name exists"
    KICKED_OUT = 46, "a moderator has removed the account from the room"
    NOT_ACCEPTED = 30, "this person does not accept messages from you, or accepts none now"
    NO_SUCH_ENTRY = 31, "the entry that this is about does not exist, or is of the wrong kind"
