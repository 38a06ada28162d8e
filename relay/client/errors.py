"""What a client raises. Everything derives from ``relay.errors.RelayError``.

Those of close codes are in ``closes``, those of error codes in ``refusals``. The tree::

    ClientError
    ├── NotConnected               a call before connect()
    ├── NoDeviceKey                there is no key for this name here, and none was given
    ├── KeyFileError               a key file cannot be used; also a UsageError
    ├── DeviceChainError           a list of devices is invalid, or forbids the request
    ├── WrongAccount               a saved identity of another account, or of a time before it
    ├── ConnectFailed              no connection to the host and port
    ├── HandshakeFailed            the server did not prove that it has its key
    │   └── NotARelayServer        it does not speak this protocol at all
    ├── ServerKeyError
    │   ├── UnknownServerKey       a key that is not pinned, and was not confirmed
    │   ├── ServerKeyMismatch      not the pinned key; there is no override
    │   └── ServerIdentityError    it claims to be another server, without proof
    ├── ConnectionLost             the connection ended without a close; no reconnecting
    ├── ServerBrokeProtocol        the server violated the protocol
    ├── ClientClosed               this client was closed before the answer arrived
    ├── ClientForked               this client belongs to the process before os.fork()
    ├── TimedOut                   a call took longer than its timeout; also a TimeoutError
    ├── MessagesMissing            a gap, if a program iterates over messages: .gap
    ├── MessageTooLong             a body over the server's limit, a content type over 64 bytes
    ├── ClosedByServer             a close code: .code, .retry_after_s
    │   ├── GoingAway (1000)  ServerFailed (1001)  Idle (1002)  TooSlow (1003)
    │   │   Overloaded (1004)  LoginTimeout (1005)  LoginUnavailable (1006)     may reconnect
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
        ├── IdConflict (8)  CounterExpected (9)  UnknownOutcome (10)            of a send
        └── Busy (11)  Unavailable (12)  StoreDamaged (23)                      of any request
"""

from __future__ import annotations

from relay.client.events import Gap
from relay.errors import RelayError, UsageError


class ClientError(RelayError):
    """Base class of what a client raises."""


class NotConnected(ClientError):
    """A call of a client that was never connected; nothing was sent."""


class NoDeviceKey(ClientError):
    """There is no device key for this name at this server, and the program gave none."""


class KeyFileError(ClientError, UsageError):
    """A file of device keys, or of pins of other accounts, cannot be used."""


class WrongAccount(ClientError):
    """A saved identity belongs to another account, or to a time before there were accounts."""


class DeviceChainError(ClientError):
    """A list of devices is invalid, or does not allow the request."""


class ConnectFailed(ClientError):
    """No connection to the relay's host and port: refused, unreachable, not resolved, timed out."""

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message)
        self.passing = passing
        """False: the system refuses a call that every attempt needs, and waiting does not help.
        What a firewall of this machine may refuse is passing."""


class HandshakeFailed(ClientError):
    """No encrypted connection: not a relay, a manipulated handshake, or a timeout."""


class NotARelayServer(HandshakeFailed):
    """The server speaks another protocol, such as HTTP, SSH, TLS or SMTP."""


class ServerKeyError(ClientError):
    """The server's key is not trusted. Nothing has been sent to the server."""

    def __init__(self, message: str, fingerprint: str) -> None:
        super().__init__(message)
        self.fingerprint = fingerprint
        """Of the key that the server presented."""


class UnknownServerKey(ServerKeyError):
    """The key is not known: not in the address, not pinned, and not accepted by a person."""


class ServerKeyMismatch(ServerKeyError):
    """The key differs from that of the address or the pin. There is no override."""

    def __init__(self, message: str, fingerprint: str, expected: str) -> None:
        super().__init__(message, fingerprint)
        self.expected = expected
        """The fingerprint that the key should have."""


class ServerIdentityError(ServerKeyError):
    """The server claims the id of a known server, which has not announced its key.

    What is kept under that id, device keys above all, is not used.
    """

    def __init__(self, message: str, fingerprint: str, server_id: str) -> None:
        super().__init__(message, fingerprint)
        self.server_id = server_id
        """The id that the server claims."""


class ConnectionLost(ClientError):
    """The connection ended without a close. Unacknowledged sends may or may not be stored."""


class ServerBrokeProtocol(ClientError):
    """The server violated the protocol; the connection was closed."""


class ClientClosed(ClientError):
    """This client was closed before the answer arrived. A send may or may not have been stored."""


class ClientForked(ClientError):
    """This client was created before ``os.fork()``, and belongs to the parent. Nothing was sent.

    Two processes with the keys of one connection would use the same nonces for different records.
    """


class TimedOut(ClientError, TimeoutError):
    """A call took longer than its ``timeout``. A send may or may not be stored: see ``send``."""


class MessagesMissing(ClientError):
    """Messages of a room will not arrive, and the program iterates over messages only.

    The iteration may continue: the next message is the one after the gap.
    """

    def __init__(self, message: str, gap: Gap) -> None:
        super().__init__(message)
        self.gap = gap
        """The missing messages, and why they are missing."""


class MessageTooLong(ClientError):
    """A body or a content type is longer than allowed; nothing was sent."""
