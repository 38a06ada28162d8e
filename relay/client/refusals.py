"""Exceptions for the error codes with which the server refuses a request or a send."""

from __future__ import annotations

from typing import Final

from relay.client.errors import ClientError
from relay.quotation import escaped, in_quotes
from relay.wire.codes import ErrorCode


class Refused(ClientError):
    """The server refused a request or a send; the connection continues."""

    code: int
    arg: int

    def __init__(self, code: int, arg: int = 0, text: str = "") -> None:
        super().__init__(describe_refusal(code, text))
        self.code = code
        self.arg = arg
        """A number whose meaning depends on the code."""


class BadRequest(Refused):
    """A field has a value that this request does not allow."""


class UnknownOperation(Refused):
    """The server does not know the operation."""


class NameInvalid(Refused):
    """The name of a person or a room is invalid or reserved."""


class NameTaken(Refused):
    """The name belongs to another account, or to another guest at present."""


class LimitReached(Refused):
    """A limit of this connection is reached; ``arg`` is the limit."""


class NotAMember(Refused):
    """The connection has not joined this room."""


class NotSupported(Refused):
    """This server version does not support it."""


class AlreadyJoined(Refused):
    """The connection has already joined this room."""


class NotRegistered(Refused):
    """Nobody has registered this name."""


class KeyRefused(Refused):
    """The key is not a device of the account."""


class AccountDisabled(Refused):
    """An operator has disabled the account."""


class LooksAlike(Refused):
    """The name looks like an existing one."""


class InvitationNeeded(Refused):
    """Registering needs an invitation, or the given one is not valid."""


class RegistrationClosed(Refused):
    """Only operators can add accounts."""


class Changed(Refused):
    """The object of the request has changed meanwhile."""


class NotAllowed(Refused):
    """The account lacks the right."""


class NoGuests(Refused):
    """The server does not allow guests."""


class NotAccepted(Refused):
    """This user does not accept direct messages from you, or not now; the reason is never given."""


class NoSuchEntry(Refused):
    """The target of an edit, a redaction, a reaction or a reply does not exist or is erased."""


class IdConflict(Refused):
    """The counter was used for other content before."""

    @property
    def seq(self) -> int:
        """The entry with this id."""
        return self.arg


class CounterExpected(Refused):
    """Counters were skipped. The client library handles this by itself."""


class UnknownOutcome(Refused):
    """It is unknown whether the message was stored: the server no longer knows this producer."""


class Busy(Refused):
    """The server cannot keep up with the room, or there are too many requests.

    A request is retried for two minutes, or for ``retry_timeout_s`` if that is longer; this is
    raised as soon as the server asks for a longer wait. A send is retried without limit, or for
    ``retry_timeout_s``.
    """

    @property
    def retry_after_s(self) -> float:
        """When to retry, in seconds."""
        return self.arg / 1000


class Unavailable(Refused):
    """The stored data of the room or the account can be neither read nor written now.

    A request is retried as after ``Busy`` before this is raised. A send is retried without limit,
    or for ``retry_timeout_s``; then it is unknown whether it is stored.
    """

    @property
    def retry_after_s(self) -> float:
        """When to retry, in seconds."""
        return self.arg / 1000


class StoreDamaged(Refused):
    """The stored data of the room or the account is damaged; the server's operator must repair it.

    A message sent before may or may not be stored. Nothing is retried automatically.
    """


class Banned(Refused):
    """The account is banned from the room."""


class Muted(Refused):
    """The account may read the room, but not write in it."""


class MembersOnly(Refused):
    """The room is private, and the account is not invited."""


class ReadOnly(Refused):
    """The room is closed, or only owners and moderators may write in it."""


class NoSuchRoom(Refused):
    """There is no such room."""


class RoomExists(Refused):
    """A room of this name exists."""


class KickedOut(Refused):
    """A moderator has removed the account from the room."""


NOT_GRANTED: Final = (NameTaken, LooksAlike, NameInvalid, InvitationNeeded, RegistrationClosed)
"""Why a requested name was not granted."""
UNCLEAR: Final = (UnknownOutcome, Unavailable, StoreDamaged)
"""After one of these, it is unknown whether a send is stored."""
REFUSALS: Final[dict[ErrorCode, type[Refused]]] = {
    ErrorCode.BAD_REQUEST: BadRequest,
    ErrorCode.UNKNOWN_OPERATION: UnknownOperation,
    ErrorCode.NAME_INVALID: NameInvalid,
    ErrorCode.NAME_TAKEN: NameTaken,
    ErrorCode.LIMIT: LimitReached,
    ErrorCode.NOT_A_MEMBER: NotAMember,
    ErrorCode.NOT_SUPPORTED: NotSupported,
    ErrorCode.ID_CONFLICT: IdConflict,
    ErrorCode.EXPECTED: CounterExpected,
    ErrorCode.UNKNOWN_OUTCOME: UnknownOutcome,
    ErrorCode.BUSY: Busy,
    ErrorCode.UNAVAILABLE: Unavailable,
    ErrorCode.ALREADY_JOINED: AlreadyJoined,
    ErrorCode.NOT_REGISTERED: NotRegistered,
    ErrorCode.KEY_REFUSED: KeyRefused,
    ErrorCode.DISABLED: AccountDisabled,
    ErrorCode.LOOKS_ALIKE: LooksAlike,
    ErrorCode.INVITATION_NEEDED: InvitationNeeded,
    ErrorCode.REGISTRATION_CLOSED: RegistrationClosed,
    ErrorCode.CHANGED: Changed,
    ErrorCode.NOT_ALLOWED: NotAllowed,
    ErrorCode.NO_GUESTS: NoGuests,
    ErrorCode.DAMAGED: StoreDamaged,
    ErrorCode.BANNED: Banned,
    ErrorCode.MUTED: Muted,
    ErrorCode.MEMBERS_ONLY: MembersOnly,
    ErrorCode.READ_ONLY: ReadOnly,
    ErrorCode.NO_SUCH_ROOM: NoSuchRoom,
    ErrorCode.ROOM_EXISTS: RoomExists,
    ErrorCode.KICKED_OUT: KickedOut,
    ErrorCode.NOT_ACCEPTED: NotAccepted,
    ErrorCode.NO_SUCH_ENTRY: NoSuchEntry,
}


_ERROR_CODES: Final = {int(code): code for code in ErrorCode}
_BY_REFUSAL: Final = {int(code): kind for code, kind in REFUSALS.items()}


_WITH_REASON: Final = (ErrorCode.KICKED_OUT, ErrorCode.BANNED)
"""With these the server passes on a reason given by a person."""


def describe_refusal(code: int, text: str = "") -> str:
    """Describe a refusal: in the server's words (sanitised), which are more precise."""
    # The server's words may reach a terminal or a log: unprintable characters are escaped.
    harmless = "".join(c if c.isprintable() else escaped(c) for c in text)
    known = _ERROR_CODES.get(code)
    if known is None:
        return f"error code {code}: {harmless}" if harmless else f"error code {code}"
    # Of a ban the server tells until when it lasts; of a kick nothing of its own.
    of_server = known is ErrorCode.BANNED and harmless.startswith(known.explanation)
    if known in _WITH_REASON and harmless not in ("", known.explanation) and not of_server:
        return f"{known.name}: {known.explanation}: {in_quotes(harmless)}"
    return f"{known.name}: {harmless or known.explanation}"


def refused(code: int, arg: int = 0, text: str = "") -> Refused:
    """Return the exception for an error code."""
    kind = _BY_REFUSAL.get(code, Refused)
    return kind(code, arg, text)
