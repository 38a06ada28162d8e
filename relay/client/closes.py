"""Exceptions for the end of a connection, usually by the server's close code."""

from __future__ import annotations

from typing import Final

from relay.client.errors import (
    ClientError,
    ConnectionLost,
    HandshakeFailed,
    NotARelayServer,
    ServerBrokeProtocol,
)
from relay.wire.codes import CloseCode
from relay.wire.events import ConnectionClosed


class ClosedByServer(ClientError):
    """The server ended the connection with a reason."""

    code: int
    retry_after_s: int

    def __init__(self, code: int, retry_after_s: int = 0, text: str = "") -> None:
        super().__init__(text or describe_close(code))
        self.code = code
        self.retry_after_s = retry_after_s
        """Seconds before the next attempt; 0: left to the client."""


class GoingAway(ClosedByServer):
    """The server or its worker is stopping or restarting."""


class ServerFailed(ClosedByServer):
    """The server failed on this connection."""


class Idle(ClosedByServer):
    """Two pings went unanswered."""


class TooSlow(ClosedByServer):
    """Nothing was read for too long."""


class Overloaded(ClosedByServer):
    """Too many connections at present."""


class LoginTimeout(ClosedByServer):
    """The login took too long."""


class LoginUnavailable(ClosedByServer):
    """The server cannot look up the account at present."""


class ClosedNormally(ClosedByServer):
    """The server ended the connection in the ordinary way."""


class ProtocolViolation(ClosedByServer):
    """The server reports that this client violated the protocol."""


class Replaced(ClosedByServer):
    """The same client instance has connected again elsewhere."""


class NameRefused(ClosedByServer):
    """The login was refused."""


class LimitExceeded(ClosedByServer):
    """A limit for one connection was exceeded."""


class Kicked(ClosedByServer):
    """An operator ended this connection, or disabled, reset, removed or demoted the account."""


class DeviceRevoked(ClosedByServer):
    """This device no longer belongs to the account."""


CLOSES: Final[dict[CloseCode, type[ClosedByServer]]] = {
    CloseCode.GOING_AWAY: GoingAway,
    CloseCode.INTERNAL: ServerFailed,
    CloseCode.IDLE: Idle,
    CloseCode.TOO_SLOW: TooSlow,
    CloseCode.OVERLOADED: Overloaded,
    CloseCode.LOGIN_TIMEOUT: LoginTimeout,
    CloseCode.LOGIN_UNAVAILABLE: LoginUnavailable,
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
    """Return ``NAME: explanation`` of a close code, even if this version does not know it."""
    try:
        known = _CLOSE_CODES[code]
    except KeyError:
        return f"close code {code}"
    return f"{known.name}: {known.explanation}"


def closed_by_server(code: int, retry_after_s: int = 0) -> ClosedByServer:
    """Return the exception for a close code."""
    kind = _BY_CLOSE.get(code, ClosedByServer)
    return kind(code, retry_after_s)


def error_of_end(
    event: ConnectionClosed, refusal: ClientError | None, *, handshaken: bool
) -> ClientError:
    """Return why a connection ended. ``refusal``: of the login on it."""
    if event.code is not None and event.remote:
        if refusal is not None and event.code == CloseCode.NAME_REFUSED:
            return refusal
        return closed_by_server(event.code, event.retry_after_s)
    if event.code == CloseCode.IDLE:
        return Idle(event.code)
    if event.code is not None:
        return ServerBrokeProtocol(f"the server broke the protocol: {event.detail}")
    if event.stranger:
        return NotARelayServer(event.detail)
    if event.remote or handshaken:
        return ConnectionLost(event.detail)
    return HandshakeFailed(f"no encrypted connection: {event.detail}")
