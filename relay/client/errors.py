"""What a client raises. Everything derives from ``relay.errors.RelayError``.

The tree::

    ClientError
    ├── NotConnected               a call before connect()
    ├── NoDeviceKey                there is no key for this name here, and none was given
    ├── KeyFileError               a key file cannot be used; also a UsageError
    ├── DeviceChainError           a list of devices is false, or does not allow what was asked
    ├── WrongAccount               a saved identity of another account, or of a time before it
    ├── ConnectFailed              no connection to the host and port
    ├── HandshakeFailed            what listens there did not prove to hold its key
    │   └── NotARelayServer        it does not speak this protocol at all
    ├── ServerKeyError
    │   ├── UnknownServerKey       a key that is not pinned, and nobody said that it is right
    │   ├── ServerKeyMismatch      another key than the pinned one; there is no override
    │   └── ServerIdentityError    it claims to be another server, and nothing proves it
    ├── ConnectionLost             the connection ended without a word, and reconnecting is off
    ├── ServerBrokeProtocol        the server sent what the protocol forbids
    ├── ClientClosed               this client was closed before the answer came
    ├── ClientForked               this client belongs to the process before os.fork()
    ├── TimedOut                   a call took longer than its timeout; also a TimeoutError
    ├── MessagesMissing            a gap, where a program iterates over messages alone: .gap
    ├── MessageTooLong             a body over the server's limit, a content type over 64 bytes
    ├── ClosedByServer             a close code: .code, .retry_after_s
    │   ├── GoingAway (1000)  ServerFailed (1001)  Idle (1002)  TooSlow (1003)
    │   │   Overloaded (1004)  LoginTimeout (1005)                              may reconnect
    │   └── ClosedNormally (2000)  ProtocolViolation (2001)  Replaced (2002)
    │       NameRefused (2003)  LimitExceeded (2004)  Kicked (2005)
    │       DeviceRevoked (2006)                                                final
    └── Refused                    an error code: .code, .arg
        ├── BadRequest (1)  UnknownOperation (2)  NameInvalid (3)  NameTaken (4)
        │   LimitReached (5)  NotAMember (6)  NotSupported (7)  AlreadyJoined (13)
        ├── NotRegistered (14)  KeyRefused (15)  AccountDisabled (16)  LooksAlike (17)
        │   InvitationNeeded (18)  RegistrationClosed (19)  Changed (20)
        │   NotAllowed (21)  NoGuests (22)                                      of accounts
        ├── Banned (40)  Muted (41)  MembersOnly (42)  ReadOnly (43)  NoSuchRoom (44)
        │   RoomExists (45)  KickedOut (46)                                     of rooms
        ├── NotAccepted (30)  NoSuchEntry (31)              of direct messages, edits, replies
        └── IdConflict (8)  CounterExpected (9)  UnknownOutcome (10)
            Busy (11)  Unavailable (12)                                         of a send
"""

from __future__ import annotations

from typing import Final

from relay.client.events import Gap
from relay.errors import RelayError, UsageError
from relay.wire.codes import CloseCode, ErrorCode


class ClientError(RelayError):
    """Root of what a client raises."""


class NotConnected(ClientError):
    """A call of a client that was never connected; nothing was sent."""


class NoDeviceKey(ClientError):
    """There is no device key for this name at this server, and the program gave none."""


class KeyFileError(ClientError, UsageError):
    """A file of device keys, or of what is pinned of other people's, cannot be used."""


class WrongAccount(ClientError):
    """A saved identity belongs to another account, or to a time before there were accounts."""


class DeviceChainError(ClientError):
    """A list of devices is false, or does not allow what was asked."""


class ConnectFailed(ClientError):
    """No connection to the relay's host and port: refused, unreachable, not resolved, timed out."""


class HandshakeFailed(ClientError):
    """No encrypted connection came about: not a relay, a tampered handshake, or too slow."""


class NotARelayServer(HandshakeFailed):
    """What listens there speaks another protocol, such as HTTP, SSH, TLS or SMTP."""


class ServerKeyError(ClientError):
    """The server's key is not to be trusted. Nothing has been sent to it."""

    def __init__(self, message: str, fingerprint: str) -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        """Of the key that the server offered."""


class UnknownServerKey(ServerKeyError):
    """The key is not known: not in the address, not pinned, and not accepted by a person."""


class ServerKeyMismatch(ServerKeyError):
    """The key is another one than the address or the pin says. There is no override."""

    def __init__(self, message: str, fingerprint: str, expected: str) -> None:
        super().__init__(message, fingerprint)
        self.expected = expected
        """The fingerprint that the key should have."""


class ServerIdentityError(ServerKeyError):
    """The server claims the id of one that is known here, and that one has not announced its key.

    What is kept under the id, device keys above all, is not used.
    """

    def __init__(self, message: str, fingerprint: str, server_id: str) -> None:
        super().__init__(message, fingerprint)
        self.server_id = server_id
        """The id that the server claims."""


class ConnectionLost(ClientError):
    """The connection ended without a close. What was unacknowledged may or may not be stored."""


class ServerBrokeProtocol(ClientError):
    """The server sent what the protocol forbids; the connection was closed."""


class ClientClosed(ClientError):
    """This client was closed before the answer came. A send may or may not have been stored."""


class ClientForked(ClientError):
    """This client was made before ``os.fork()``, and belongs to the parent. Nothing was sent.

    Two processes with the keys of one connection would seal different records alike.
    """


class TimedOut(ClientError, TimeoutError):
    """A call took longer than its ``timeout``. A send may or may not be stored: see ``send``."""


class MessagesMissing(ClientError):
    """Messages of a room will not come, and the program iterates over messages alone.

    The iteration may go on: the next message is the one after the gap.
    """

    def __init__(self, message: str, gap: Gap) -> None:
        super().__init__(message)
        self.gap = gap
        """Which ones, and why."""


class MessageTooLong(ClientError):
    """A body or a content type is longer than allowed; nothing was sent."""


# --- closes ------------------------------------------------------------------------------------
class ClosedByServer(ClientError):
    """The server ended the connection, and said why."""

    code: int
    retry_after_s: int

    def __init__(self, code: int, retry_after_s: int = 0, text: str = "") -> None:
        super().__init__(text or describe_close(code))
        self.code = code
        self.retry_after_s = retry_after_s
        """Seconds before the next attempt; 0: the client's choice."""


class GoingAway(ClosedByServer):
    """The server or its worker stops or restarts."""


class ServerFailed(ClosedByServer):
    """The server failed on this connection."""


class Idle(ClosedByServer):
    """Two pings went unanswered."""


class TooSlow(ClosedByServer):
    """Nothing was read for too long."""


class Overloaded(ClosedByServer):
    """Too many connections now."""


class LoginTimeout(ClosedByServer):
    """The login came too late."""


class ClosedNormally(ClosedByServer):
    """The server ended the connection in the ordinary way."""


class ProtocolViolation(ClosedByServer):
    """The server says that this client broke the protocol."""


class Replaced(ClosedByServer):
    """The same client instance connected again somewhere else."""


class NameRefused(ClosedByServer):
    """The login was refused."""


class LimitExceeded(ClosedByServer):
    """A limit for one connection was exceeded."""


class Kicked(ClosedByServer):
    """An operator ended this connection: the account was disabled or removed."""


class DeviceRevoked(ClosedByServer):
    """This device is not one of the account any more."""


CLOSES: Final[dict[CloseCode, type[ClosedByServer]]] = {
    CloseCode.GOING_AWAY: GoingAway,
    CloseCode.INTERNAL: ServerFailed,
    CloseCode.IDLE: Idle,
    CloseCode.TOO_SLOW: TooSlow,
    CloseCode.OVERLOADED: Overloaded,
    CloseCode.LOGIN_TIMEOUT: LoginTimeout,
    CloseCode.NORMAL: ClosedNormally,
    CloseCode.PROTOCOL: ProtocolViolation,
    CloseCode.REPLACED: Replaced,
    CloseCode.NAME_REFUSED: NameRefused,
    CloseCode.LIMIT: LimitExceeded,
    CloseCode.KICKED: Kicked,
    CloseCode.REVOKED: DeviceRevoked,
}


_CLOSE_CODES: Final = {int(code): code for code in CloseCode}
_BY_CLOSE: Final = {int(code): kind for code, kind in CLOSES.items()}


def describe_close(code: int) -> str:
    """Return ``NAME: explanation`` of a close code, also of one that this version does not know."""
    try:
        known = _CLOSE_CODES[code]
    except KeyError:
        return f"close code {code}"
    return f"{known.name}: {known.explanation}"


def closed_by_server(code: int, retry_after_s: int = 0) -> ClosedByServer:
    """Return the exception of a close code."""
    kind = _BY_CLOSE.get(code, ClosedByServer)
    return kind(code, retry_after_s)


# --- refusals ----------------------------------------------------------------------------------
class Refused(ClientError):
    """The server refused a request or a send; the connection goes on."""

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
    """The name belongs to somebody else, or to another guest now."""


class LimitReached(Refused):
    """A limit of this connection is reached; ``arg`` is the limit."""


class NotAMember(Refused):
    """The connection has not joined this room."""


class NotSupported(Refused):
    """This version of the server does not offer that."""


class AlreadyJoined(Refused):
    """The connection has joined this room before."""


class NotRegistered(Refused):
    """Nobody has registered this name."""


class KeyRefused(Refused):
    """The key is not a device of the account."""


class AccountDisabled(Refused):
    """An operator has disabled the account."""


class LooksAlike(Refused):
    """The name looks like one that exists."""


class InvitationNeeded(Refused):
    """Registering needs an invitation, or the given one is not valid."""


class RegistrationClosed(Refused):
    """Only operators add accounts."""


class Changed(Refused):
    """What the request was made for has changed meanwhile."""


class NotAllowed(Refused):
    """The account does not have the rights."""


class NoGuests(Refused):
    """The server takes no guests."""


class NotAccepted(Refused):
    """This person takes no direct messages from you, or none now; why, nobody is told."""


class NoSuchEntry(Refused):
    """What an edit, a redaction, a reaction or a reply is about is not there, or is erased."""


class IdConflict(Refused):
    """The counter was used for another content before."""

    @property
    def seq(self) -> int:
        """The entry that has this id."""
        return self.arg


class CounterExpected(Refused):
    """Counters were skipped. The client library handles this by itself."""


class UnknownOutcome(Refused):
    """Whether the message was stored cannot be told: the server no longer knows this producer."""


class Busy(Refused):
    """The server cannot keep up with the room."""

    @property
    def retry_after_s(self) -> float:
        """When to try again."""
        return self.arg / 1000


class Unavailable(Refused):
    """The room's store cannot be written now."""

    @property
    def retry_after_s(self) -> float:
        """When to try again."""
        return self.arg / 1000


class Banned(Refused):
    """The account is banned from the room."""


class Muted(Refused):
    """The account may read the room, and not write in it."""


class MembersOnly(Refused):
    """The room is private, and the account is not invited."""


class ReadOnly(Refused):
    """The room is closed, or only its owners and moderators write in it."""


class NoSuchRoom(Refused):
    """There is no such room."""


class RoomExists(Refused):
    """There is a room of this name."""


class KickedOut(Refused):
    """A moderator has put the account out of the room."""


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


def describe_refusal(code: int, text: str = "") -> str:
    """Return the explanation of an error code, with what the server added (made harmless)."""
    try:
        known = _ERROR_CODES[code]
        said = f"{known.name}: {known.explanation}"
    except KeyError:
        said = f"error code {code}"
    # The server's words may reach a terminal or a log: escape what is not printable (section 6).
    harmless = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)
    return f"{said} ({harmless})" if harmless else said


def refused(code: int, arg: int = 0, text: str = "") -> Refused:
    """Return the exception of an error code."""
    kind = _BY_REFUSAL.get(code, Refused)
    return kind(code, arg, text)
