"""One end of a connection before there are keys, and after its close: sans I/O.

``connection.Connection`` is complete: it adds what is sent and received with keys.
"""

from __future__ import annotations

from typing import Final

from relay.errors import ForkedConnection, LocalProtocolError, RemoteProtocolError
from relay.wire import fork
from relay.wire.events import ConnectionClosed, Event, SecretWrapped, ServerKeyOffered
from relay.wire.frames import FrameReader
from relay.wire.handshake import ClientHandshake, Established, ServerHandshake
from relay.wire.messages import Work
from relay.wire.other_protocols import NOT_RELAY, described
from relay.wire.phases import LEGAL, Phase, Side
from relay.wire.resumption import Resumption
from relay.wire.tickets import ClientTicket
from relay.wire.timing import Timing

CLOSE_DRAIN_BYTES_MAX: Final = 16 * 1024 * 1024
"""What is read and dropped after our own close: more than kernels buffer for one connection."""


class Endpoint:
    """The part of a connection without record protection."""

    __slots__ = (
        "_close_code", "_deadline", "_drained", "_events", "_generation", "_handshake",
        "_modulus_bytes", "_resumption", "_timing", "login_binding", "out", "phase", "reader",
        "side", "work",
    )  # fmt: skip

    def __init__(
        self,
        side: Side,
        phase: Phase,
        handshake: ClientHandshake | ServerHandshake,
        timing: Timing,
        deadline: float,
    ) -> None:
        self.side = side
        self._generation = fork.generation()
        self._handshake: ClientHandshake | ServerHandshake | None = handshake
        self._timing = timing
        self._deadline: float | None = deadline
        self._events: list[Event] = []
        self.out = b""
        """Pending output, to be taken by ``data_to_send``. Bytes, not a list: one object less for
        ``seal`` to access."""
        self.reader = FrameReader(LEGAL[phase])
        """Splits what is received into frames. Its ``pending`` bytes are not processed yet."""
        self.phase = phase
        self.login_binding: bytes | None = None
        """Bound to this connection and the server's key; set once the handshake is complete."""
        self.work: Work | None = None
        """Client: the work that the server requests, to be done outside and passed to
        ``provide_work``; None except in that phase."""
        self._modulus_bytes = 0
        self._resumption: Resumption | None = None
        """For the tickets of this connection; None: there are no keys (any more)."""
        self._close_code: int | None = None
        self._drained = 0
        """Bytes received since our own close."""

    def _check_process(self) -> None:
        if self._generation != fork.generation():
            raise ForkedConnection

    # --- input and output ---------------------------------------------------------------------
    def feed(self, data: bytes) -> None:
        """Take bytes from the peer, for an owner that limits how many frames it processes."""
        phase = self.phase
        if phase is Phase.CLOSING or phase is Phase.DRAINING:
            self._drained += len(data)
            if self._drained > CLOSE_DRAIN_BYTES_MAX:
                self._end_of_closing("the peer sends on and on after our close")
        if self.phase is not Phase.CLOSED and self.phase is not Phase.DRAINING:
            self.reader.feed_bytes(data)

    def limit_records(self, body_bytes_max: int) -> None:
        """Refuse records with a longer body from now on: such a header is a violation."""
        self.reader.body_bytes_max = body_bytes_max

    def events(self) -> list[Event]:
        """Return the events since the last call."""
        if not self._events:
            return []
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """Return the bytes for the peer, and clear them."""
        data = self.out
        if data:
            if self._generation != fork.generation():
                raise ForkedConnection
            self.out = b""
        return data

    @property
    def finished(self) -> bool:
        """True if the owner should close the socket, once ``data_to_send`` is written."""
        return self.phase is Phase.CLOSED

    def next_deadline(self) -> float | None:
        """Return when ``handle_deadline`` is due, in monotonic seconds."""
        return self._deadline

    # --- decisions of the owner ---------------------------------------------------------------
    def accept_server_key(self, now: float, ticket: ClientTicket | None = None) -> None:
        """Client: the offered key is right; send the session key, after the work.

        ``ticket``: from an earlier connection to the server with this key; it is used up now.
        """
        self._check_process()
        handshake = self._handshake
        if self.phase is not Phase.PIN_DECISION or not isinstance(handshake, ClientHandshake):
            raise LocalProtocolError("there is no key to accept")
        self.work = handshake.prepare_key(ticket)
        if self.work is not None:
            self._enter(Phase.WORKING)
            return
        self.out += handshake.client_key()
        self._enter(Phase.AWAIT_SERVER_FINISHED)

    def provide_work(self, nonce: bytes, now: float) -> None:
        """Client: the nonce found for ``work``; send the session key."""
        self._check_process()
        handshake = self._handshake
        if self.phase is not Phase.WORKING or not isinstance(handshake, ClientHandshake):
            raise LocalProtocolError("no work is awaited")
        self.work = None
        self.out += handshake.client_key(nonce)
        self._enter(Phase.AWAIT_SERVER_FINISHED)

    def provide_secret(self, secret: bytes, now: float) -> None:
        """Server: the key agent's answer. No effect if the connection has ended meanwhile."""
        if self.phase is Phase.CLOSED:
            return
        self._check_process()
        handshake = self._handshake
        if self.phase is not Phase.UNWRAPPING or not isinstance(handshake, ServerHandshake):
            raise LocalProtocolError("no secret is awaited")
        try:
            self.out += handshake.finish(secret)
        except RemoteProtocolError as error:
            self._finish(None, detail=str(error))
            return
        self._enter(Phase.AWAIT_CLIENT_FINISHED)

    # --- frames -------------------------------------------------------------------------------
    def _receive_handshake(self, whole: bytes, now: float) -> None:
        phase, handshake = self.phase, self._handshake
        if isinstance(handshake, ServerHandshake):
            if phase is Phase.AWAIT_CLIENT_KEY:
                if self.reader.pending:  # before a ticket is used, or RSA computed
                    raise RemoteProtocolError("bytes out of turn")
                ciphertext = handshake.receive_key(whole, self._modulus_bytes)
                # Absolute from accept: ClientKey within 10 s, the whole handshake within 15 s.
                if self._deadline is not None:
                    self._deadline += self._timing.handshake_s - self._timing.client_key_s
                if ciphertext is None:
                    self.out += handshake.finish(None)
                    self._enter(Phase.AWAIT_CLIENT_FINISHED)
                else:
                    self._enter(Phase.UNWRAPPING)
                    self._events.append(SecretWrapped(ciphertext))
            else:
                self._established(handshake.receive_finished(whole), now)
        elif isinstance(handshake, ClientHandshake):
            if phase is Phase.AWAIT_SERVER_HELLO:
                key = handshake.receive_hello(whole)
                self._enter(Phase.PIN_DECISION)
                if not self.reader.pending:  # otherwise the loop ends it: bytes out of turn
                    offered = ServerKeyOffered(key.spki, key.fingerprint, handshake.server_id)
                    self._events.append(offered)
            else:
                if self.reader.pending:
                    raise RemoteProtocolError("bytes behind ServerFinished")
                reply, established = handshake.receive_finished(whole)
                self.out += reply
                self._established(established, now)

    def _established(self, established: Established, now: float) -> None:
        """Continue with keys. Implemented by the complete connection."""
        raise NotImplementedError

    # --- the end ------------------------------------------------------------------------------
    def _lost(self) -> None:
        """The peer has ended its stream during the handshake."""
        if self.phase is not Phase.AWAIT_SERVER_HELLO:
            self._finish(None, remote=True, detail="the connection was lost")
        elif self.reader.pending:
            self._finish(None, remote=True, detail=NOT_RELAY, stranger=True)
        else:
            detail = "it was closed at once: the server is stopping, or is not a Relay server"
            self._finish(None, remote=True, detail=detail)

    def _illegal_hello(self) -> None:
        """The input is not a ServerHello."""
        self._finish(None, detail=described(self.reader.head()), stranger=True)

    def _late(self) -> None:
        """The handshake's deadline has passed."""
        detail = "the handshake took too long"
        if self.phase is Phase.AWAIT_SERVER_HELLO:
            detail += ": the server sent nothing; is it a Relay server?"
        self._finish(None, detail=detail)

    def _end_of_closing(self, detail: str) -> None:
        """The peer's answer to our close has arrived, or is no longer awaited."""
        if self.phase is Phase.CLOSING:
            self._finish(self._close_code, detail=detail)
        else:  # the owner knows
            self._enter(Phase.CLOSED)
            self._deadline = None

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.reader.allowed = LEGAL[phase]

    def _finish(
        self,
        code: int | None,
        retry_after_s: int = 0,
        *,
        clean: bool = False,
        remote: bool = False,
        detail: str,
        stranger: bool = False,
    ) -> None:
        self._enter(Phase.CLOSED)
        self._handshake = None
        self._resumption = None
        self.work = None
        self._deadline = None
        self.reader.close()
        self._events.append(ConnectionClosed(code, retry_after_s, clean, remote, detail, stranger))
