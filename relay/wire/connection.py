"""One end of a connection, sans I/O: bytes in, events and bytes out.

The owner feeds ``receive_data`` and drains ``events()`` and ``data_to_send()`` after every call; it
passes the clock (monotonic seconds) and randomness in. Nothing that a peer sends raises here: it
becomes ``ConnectionClosed``. Calling a method that the phase forbids is our own bug:
LocalProtocolError. So is any use in a forked child: ForkedConnection, before a byte is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relay.errors import ForkedConnection, IllegalFrame, LocalProtocolError, RemoteProtocolError
from relay.wire import fork
from relay.wire.cipher import (
    AuthenticationFailed,
    ReceiveCipher,
    RecordLimits,
    RecordType,
    SendCipher,
)
from relay.wire.codes import CloseCode
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    Event,
    HandshakeCompleted,
    PongReceived,
    SecretWrapped,
    ServerKeyOffered,
    TicketReceived,
)
from relay.wire.frames import FrameReader
from relay.wire.handshake import (
    OPENSSL,
    ClientHandshake,
    Established,
    RandomBytes,
    Randomised,
    ServerHandshake,
)
from relay.wire.identity import parse_spki
from relay.wire.key_schedule import ticket_secret
from relay.wire.messages import TICKET_BYTES_MAX, Work
from relay.wire.phases import LEGAL, Phase, Side
from relay.wire.tickets import TICKET_NONCE_BYTES, ClientTicket, TicketKeys

PING_BYTES_MAX: Final = 64
PONG_INTERVAL_S: Final = 1.0
"""A ping sooner than this after a pong is dropped: pings cannot make us work."""
TICKETS_MAX: Final = 2
TICKET_HEAD_BYTES: Final = 12
KEEPALIVE: Final = b"keepalive"
CLOSE_DRAIN_BYTES_MAX: Final = 16 * 1024 * 1024
"""What is read and dropped after our own close: more than kernels hold for one connection."""
APP: Final = int(RecordType.APP)
_new: Final = tuple.__new__
"""Makes a NamedTuple without the call of Python that its own ``__new__`` is."""
NOT_RELAY: Final = "this is not a Relay server"
_STRANGERS: Final = (
    (b"HTTP/", "HTTP"),
    (b"SSH-", "SSH"),
    (b"\x15\x03", "TLS"),
    (b"\x16\x03", "TLS"),
    (b"220", "SMTP or FTP"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"INFO {", "NATS"),
    (b"RFB ", "VNC"),
)
"""How servers of other protocols begin."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines in seconds; those of the handshake are absolute from the start."""

    client_key_s: float = 10.0
    handshake_s: float = 15.0
    ping_after_s: float = 30.0
    pings_unanswered_max: int = 2
    close_wait_s: float = 2.0
    violation_wait_s: float = 0.0
    """Server: how long after a violation bytes are still read, and dropped, so that no reset
    overtakes the close record. An owner that sets it keeps reading until ``finished``, although
    ``ConnectionClosed`` has come. 0: the connection is finished at once."""


DEFAULT_LIMITS: Final = RecordLimits()
DEFAULT_TIMING: Final = Timing()


class Connection:
    """One end of a connection."""

    __slots__ = (
        "_close_code", "_deadline", "_drained", "_events", "_generation", "_handshake",
        "_last_pong", "_limits", "_modulus_bytes", "_out", "_pings_unanswered", "_reader",
        "_receive", "_resumption", "_send", "_tickets", "_timing", "login_binding", "phase",
        "side", "work",
    )  # fmt: skip

    _send: SendCipher
    _receive: ReceiveCipher

    def __init__(
        self,
        side: Side,
        phase: Phase,
        handshake: ClientHandshake | ServerHandshake,
        limits: RecordLimits,
        timing: Timing,
        deadline: float,
    ) -> None:
        self.side = side
        self._generation = fork.generation
        self._handshake: ClientHandshake | ServerHandshake | None = handshake
        self._limits = limits
        self._timing = timing
        self._deadline: float | None = deadline
        self._events: list[Event] = []
        self._out = b""
        """Owed to the peer. Bytes, not a list: one object less for ``seal`` to touch."""
        self._reader = FrameReader(LEGAL[phase])
        self.phase = phase
        self.login_binding: bytes | None = None
        """Bound to this connection and the server's key; known once the handshake is complete."""
        self.work: Work | None = None
        """Client: what the server asks for, to be done outside and given to ``provide_work``; None
        except in that phase."""
        self._modulus_bytes = 0
        self._pings_unanswered = 0
        self._last_pong = float("-inf")
        self._tickets = 0
        """Received."""
        self._resumption: bytes = b""
        """From which the secrets of this connection's tickets follow; empty: there are none."""
        self._close_code: int | None = None
        self._drained = 0
        """Bytes received since our own close."""

    @classmethod
    def client(
        cls,
        *,
        now: float,
        random_bytes: RandomBytes,
        limits: RecordLimits = DEFAULT_LIMITS,
        timing: Timing = DEFAULT_TIMING,
        version_min: int = 1,
        randomised: Randomised = OPENSSL,
    ) -> Connection:
        """Return the client's end; it waits for the server to speak.

        Args:
            now: monotonic seconds.
            random_bytes: ``secrets.token_bytes`` or, in tests, a fixed stream.
            limits: usage limits of a traffic key.
            timing: deadlines.
            version_min: the highest version of a handshake completed before under this pin.
            randomised: the operations that OpenSSL randomises itself; replaced for test vectors.
        """
        handshake = ClientHandshake(random_bytes, version_min, randomised)
        return cls(
            Side.CLIENT,
            Phase.AWAIT_SERVER_HELLO,
            handshake,
            limits,
            timing,
            now + timing.handshake_s,
        )

    @classmethod
    def server(
        cls,
        *,
        now: float,
        random_bytes: RandomBytes,
        spki: bytes,
        modulus_bytes: int | None = None,
        limits: RecordLimits = DEFAULT_LIMITS,
        timing: Timing = DEFAULT_TIMING,
        pow_bits: int = 0,
        randomised: Randomised = OPENSSL,
        tickets: TicketKeys | None = None,
        ext: bytes = b"",
    ) -> Connection:
        """Return the server's end, with its ServerHello ready to send.

        Args:
            now: monotonic seconds, the moment of accept.
            random_bytes: drawn from after the fork.
            spki: the server's public key, as the key agent gave it.
            modulus_bytes: of that key; computed when it is not given.
            limits: usage limits of a traffic key.
            timing: deadlines.
            pow_bits: work asked of the client, 0 in calm.
            randomised: replaced for test vectors.
            tickets: what opens and seals them; None: there are none.
            ext: of the hello (``messages.pack_ext``).
        """
        handshake = ServerHandshake(random_bytes, spki, pow_bits, randomised, tickets, ext)
        deadline = now + timing.client_key_s
        self = cls(Side.SERVER, Phase.AWAIT_CLIENT_KEY, handshake, limits, timing, deadline)
        self._modulus_bytes = modulus_bytes or parse_spki(spki).modulus_bytes
        self._out += handshake.server_hello()
        return self

    def _check_process(self) -> None:
        if self._generation != fork.generation:
            raise ForkedConnection

    # --- input --------------------------------------------------------------------------------
    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the peer and process all of them. Never raises for what they are."""
        if not self.finished:
            self._check_process()
        self.feed(data)
        while self.receive_next(now):
            pass

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer, for an owner that bounds how many frames it processes."""
        phase = self.phase
        if phase is Phase.CLOSING or phase is Phase.DRAINING:
            self._drained += len(data)
            if self._drained > CLOSE_DRAIN_BYTES_MAX:
                self._end_of_closing("the peer sends on and on after our close")
        if self.phase is not Phase.CLOSED and self.phase is not Phase.DRAINING:
            self._reader.feed_bytes(data)

    def receive_next(self, now: float) -> bool:
        """Process the next frame that was fed. Never raises for what it is.

        Returns:
            False when there is no whole frame, or nothing that comes is processed any more: then
            nothing has happened either.
        """
        reader = self._reader
        if not reader.pending:
            return False
        if self._generation != fork.generation:
            raise ForkedConnection
        try:
            if not reader.allowed:
                raise RemoteProtocolError("bytes out of turn")
            whole = reader.next_frame()
            if whole is None:
                return False
            self._receive_frame(whole, now)
        except AuthenticationFailed as failed:  # mypyc wants a name of its own for each type
            self._finish(None, detail=str(failed))
        except RemoteProtocolError as error:
            if self.phase is Phase.AWAIT_SERVER_HELLO and isinstance(error, IllegalFrame):
                self._finish(None, detail=_stranger(reader.head()), stranger=True)
            else:
                self.violated(error, now)
        return True

    def violated(self, error: RemoteProtocolError, now: float) -> None:
        """The peer broke the protocol, here or in what the owner found in a record: the end.

        After the keys the peer is told why, without waiting for its answer; before them, silence.
        """
        code: int | None = None
        if self.phase is Phase.OPEN:
            code = error.code
            self._put_close(code, now, 0)
            if self.side is Side.SERVER and self._timing.violation_wait_s > 0:
                self._drain(code, now, str(error))
                return
        elif self.phase is Phase.CLOSING:
            code = self._close_code
        elif self.phase is Phase.CLOSED or self.phase is Phase.DRAINING:
            return
        else:
            self._out = b""
        self._finish(code, detail=str(error))

    def receive_eof(self, now: float) -> None:
        """Take the end of the peer's stream, or the loss of the connection."""
        if self.phase is Phase.CLOSING or self.phase is Phase.DRAINING:
            self._end_of_closing("closed without waiting for our close")
        elif self.phase is Phase.AWAIT_SERVER_HELLO:
            if self._reader.pending:
                self._finish(None, remote=True, detail=NOT_RELAY, stranger=True)
            else:
                detail = "it was closed before the server sent anything; is it a Relay server?"
                self._finish(None, remote=True, detail=detail)
        elif self.phase is not Phase.CLOSED:
            self._finish(None, remote=True, detail="the connection was lost")

    @property
    def pending(self) -> int:
        """Bytes received and not processed: whole frames that wait, and the beginning of one."""
        return self._reader.pending

    def limit_records(self, body_bytes_max: int) -> None:
        """Accept no record with a longer body from now on: a header with more is a violation."""
        self._reader.body_bytes_max = body_bytes_max

    def events(self) -> list[Event]:
        """Return what has happened since the last call."""
        if not self._events:
            return []
        events, self._events = self._events, []
        return events

    # --- output -------------------------------------------------------------------------------
    def data_to_send(self) -> bytes:
        """Return bytes for the peer, and forget them."""
        data = self._out
        if data:
            self._check_process()
            self._out = b""
        return data

    @property
    def finished(self) -> bool:
        """True when the owner should close the socket, once ``data_to_send`` is written."""
        return self.phase is Phase.CLOSED

    def send(self, content: bytes, now: float) -> None:
        """Queue one app record. Raises LocalProtocolError before and after the open phase."""
        if self.phase is not Phase.OPEN:
            raise LocalProtocolError(f"send in phase {self.phase.name}")
        self._put(RecordType.APP, content, now)

    def seal(self, content: bytes, now: float) -> bytes:
        """Return ``data_to_send()`` and one app record behind it, to be written at once.

        Raises:
            LocalProtocolError: before and after the open phase.
        """
        if self.phase is not Phase.OPEN:
            raise LocalProtocolError(f"seal in phase {self.phase.name}")
        cipher = self._send
        if (
            self._out
            or cipher.sequence >= cipher.records_max
            or cipher.bytes_used >= cipher.bytes_max
            or now >= cipher.until
        ):
            self._put(RecordType.APP, content, now)
            return self.data_to_send()
        return cipher.seal(APP, content)

    def ping(self, payload: bytes, now: float) -> None:
        """Ask the peer for a sign of life."""
        if self.phase is not Phase.OPEN or len(payload) > PING_BYTES_MAX:
            raise LocalProtocolError("no ping now, or its payload is too long")
        self._put(RecordType.PING, payload, now)

    def close(self, code: int, now: float, retry_after_s: int = 0) -> None:
        """End the connection: with a close record once there are keys, silently before."""
        if self.phase is Phase.OPEN:
            self._put_close(code, now, retry_after_s)
            self._close_code = code
            self._enter(Phase.CLOSING)
            self._deadline = now + self._timing.close_wait_s
        elif self.phase not in (Phase.CLOSING, Phase.DRAINING, Phase.CLOSED):
            self._finish(None, detail="closed before the handshake was complete")

    def shed(self, code: int, now: float, retry_after_s: int, detail: str) -> None:
        """End now and forget what was received: with a close record once there are keys.

        As after a violation, what still comes is read and dropped for a while (``Timing``), so that
        no reset overtakes the close record.
        """
        if self.phase is Phase.OPEN:
            self._put_close(code, now, retry_after_s)
            if self.side is Side.SERVER and self._timing.violation_wait_s > 0:
                self._drain(code, now, detail)
            else:
                self._finish(code, detail=detail)
        else:
            self.abort(detail)

    def abort(self, reason: str) -> None:
        """Drop the connection at once, without a word."""
        if self.phase is Phase.DRAINING:
            self._out = b""
            self._end_of_closing(reason)
        elif self.phase is not Phase.CLOSED:
            self._out = b""
            self._finish(None, detail=reason)

    # --- decisions that the owner makes -------------------------------------------------------
    def accept_server_key(self, now: float, ticket: ClientTicket | None = None) -> None:
        """Client: the offered key is the right one; send the session key, after the work.

        ``ticket`` is of an earlier connection to the server with this key; it is used up now.
        """
        self._check_process()
        handshake = self._handshake
        if self.phase is not Phase.PIN_DECISION or not isinstance(handshake, ClientHandshake):
            raise LocalProtocolError("there is no key to accept")
        self.work = handshake.prepare_key(ticket)
        if self.work is not None:
            self._enter(Phase.WORKING)
            return
        self._out += handshake.client_key()
        self._enter(Phase.AWAIT_SERVER_FINISHED)

    def provide_work(self, nonce: bytes, now: float) -> None:
        """Client: the nonce that ``work`` has found; send the session key."""
        self._check_process()
        handshake = self._handshake
        if self.phase is not Phase.WORKING or not isinstance(handshake, ClientHandshake):
            raise LocalProtocolError("no work is awaited")
        self.work = None
        self._out += handshake.client_key(nonce)
        self._enter(Phase.AWAIT_SERVER_FINISHED)

    def provide_secret(self, secret: bytes, now: float) -> None:
        """Server: the key agent's answer. Without effect when the connection ended meanwhile."""
        if self.phase is Phase.CLOSED:
            return
        self._check_process()
        handshake = self._handshake
        if self.phase is not Phase.UNWRAPPING or not isinstance(handshake, ServerHandshake):
            raise LocalProtocolError("no secret is awaited")
        try:
            self._out += handshake.finish(secret)
        except RemoteProtocolError as error:
            self._finish(None, detail=str(error))
            return
        self._enter(Phase.AWAIT_CLIENT_FINISHED)

    def give_ticket(self, tickets: TicketKeys, now: float) -> bool:
        """Server: queue the ticket for the client's next connection. False: there is none.

        One for each connection, and from it follows the next one: two would only be used by a
        client that makes two connections of one.
        """
        if self.phase is not Phase.OPEN or self.side is not Side.SERVER or not self._resumption:
            raise LocalProtocolError(f"a ticket in phase {self.phase.name}, or a second one")
        nonce = bytes(TICKET_NONCE_BYTES)
        sealed = tickets.seal(ticket_secret(self._resumption, nonce))
        self._resumption = b""
        if sealed is None:
            return False
        ticket, lifetime_s = sealed
        content = nonce + lifetime_s.to_bytes(4, "big") + len(ticket).to_bytes(2, "big") + ticket
        self._put(RecordType.TICKET, content, now)
        return True

    # --- time ---------------------------------------------------------------------------------
    def next_deadline(self) -> float | None:
        """Return when ``handle_deadline`` is due, in monotonic seconds."""
        return self._deadline

    def handle_deadline(self, now: float) -> None:
        """Act if the deadline has passed: time out, ping, or give the peer up."""
        if self._deadline is None or now < self._deadline:
            return
        if self.phase is Phase.OPEN:
            if self._pings_unanswered >= self._timing.pings_unanswered_max:
                self._put_close(CloseCode.IDLE, now, 0)
                self._finish(CloseCode.IDLE, detail="pings went unanswered")
                return
            self._pings_unanswered += 1
            self._deadline = now + self._timing.ping_after_s
            self._put(RecordType.PING, KEEPALIVE, now)
        elif self.phase is Phase.CLOSING or self.phase is Phase.DRAINING:
            self._end_of_closing("the peer did not answer our close")
        elif self.phase is Phase.AWAIT_SERVER_HELLO:
            detail = "the handshake took too long: the server sent nothing; is it a Relay server?"
            self._finish(None, detail=detail)
        elif self.phase is not Phase.CLOSED:
            self._finish(None, detail="the handshake took too long")

    # --- frames -------------------------------------------------------------------------------
    def _receive_frame(self, whole: bytes, now: float) -> None:
        phase = self.phase
        if phase is Phase.OPEN or phase is Phase.CLOSING:
            self._receive_record(whole, now)
            return
        handshake = self._handshake
        if isinstance(handshake, ServerHandshake):
            if phase is Phase.AWAIT_CLIENT_KEY:
                if self._reader.pending:  # before a ticket is used up, or RSA done, for that
                    raise RemoteProtocolError("bytes out of turn")
                ciphertext = handshake.receive_key(whole, self._modulus_bytes)
                # Absolute from accept: ClientKey within 10 s, the whole handshake within 15 s.
                if self._deadline is not None:
                    self._deadline += self._timing.handshake_s - self._timing.client_key_s
                if ciphertext is None:
                    self._out += handshake.finish(None)
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
                if not self._reader.pending:  # otherwise the loop ends it: bytes out of turn
                    offered = ServerKeyOffered(key.spki, key.fingerprint, handshake.server_id)
                    self._events.append(offered)
            else:
                if self._reader.pending:
                    raise RemoteProtocolError("bytes behind ServerFinished")
                reply, established = handshake.receive_finished(whole)
                self._out += reply
                self._established(established, now)

    def _established(self, established: Established, now: float) -> None:
        secrets = established.secrets
        client = self.side is Side.CLIENT
        mine, theirs = (
            (secrets.client, secrets.server) if client else (secrets.server, secrets.client)
        )
        self._send = SendCipher(mine, self._limits, now)
        self._receive = ReceiveCipher(theirs, self._limits, now)
        self.login_binding = established.login_binding
        self._resumption = established.resumption
        self._handshake = None
        self._enter(Phase.OPEN)
        self._deadline = now + self._timing.ping_after_s
        self._events.append(HandshakeCompleted(established.mode, established.fell_back))

    def _receive_record(self, whole: bytes, now: float) -> None:
        record_type, content = self._receive.open(whole)
        if self.phase is Phase.OPEN:
            self._pings_unanswered = 0
            self._deadline = now + self._timing.ping_after_s
            if record_type == APP:
                self._events.append(_new(ApplicationData, (content,)))
                return
        if record_type == RecordType.CLOSE:
            self._receive_close(content, now)
        elif record_type == RecordType.KEY_UPDATE:
            if content:
                raise RemoteProtocolError("a key update with a content")
            self._receive.accept_update(now)
        elif record_type == RecordType.PING:
            self._receive_ping(content, now)
        elif record_type == RecordType.PONG:
            if len(content) > PING_BYTES_MAX:
                raise RemoteProtocolError("a pong that is too long")
            if content != KEEPALIVE:
                self._events.append(PongReceived(content))
        elif record_type == RecordType.TICKET:
            self._receive_ticket(content)
        elif record_type != RecordType.APP:
            raise RemoteProtocolError("an unknown type of record")

    def _receive_ping(self, content: bytes, now: float) -> None:
        if len(content) > PING_BYTES_MAX:
            raise RemoteProtocolError("a ping that is too long")
        if self.phase is Phase.OPEN and now - self._last_pong >= PONG_INTERVAL_S:
            self._last_pong = now
            self._put(RecordType.PONG, content, now)

    def _receive_ticket(self, content: bytes) -> None:
        if self.side is Side.SERVER:
            raise RemoteProtocolError("a ticket from a client")
        self._tickets += 1
        length = int.from_bytes(content[TICKET_HEAD_BYTES : TICKET_HEAD_BYTES + 2], "big")
        if (
            self._tickets > TICKETS_MAX
            or len(content) != TICKET_HEAD_BYTES + 2 + length
            or not 1 <= length <= TICKET_BYTES_MAX
        ):
            raise RemoteProtocolError("a malformed ticket, or too many")
        psk = ticket_secret(self._resumption, content[:TICKET_NONCE_BYTES])
        ticket = ClientTicket(content[TICKET_HEAD_BYTES + 2 :], psk)
        lifetime_s = int.from_bytes(content[TICKET_NONCE_BYTES:TICKET_HEAD_BYTES], "big")
        self._events.append(TicketReceived(ticket, lifetime_s))

    def _receive_close(self, content: bytes, now: float) -> None:
        if len(content) != 4:
            raise RemoteProtocolError("a malformed close")
        code = int.from_bytes(content[:2], "big")
        retry_after_s = int.from_bytes(content[2:], "big")
        if self.phase is Phase.CLOSING:
            self._finish(self._close_code, clean=True, detail="closed by both sides")
            return
        self._put_close(code, now, 0)
        self._finish(code, retry_after_s, clean=True, remote=True, detail="closed by the peer")

    # --- inside -------------------------------------------------------------------------------
    def _put(self, record_type: RecordType, content: bytes, now: float) -> None:
        cipher = self._send
        if cipher.update_due(now):
            self._out += cipher.seal(RecordType.KEY_UPDATE, b"")
            cipher.update(now)
        self._out += cipher.seal(record_type, content)

    def _put_close(self, code: int, now: float, retry_after_s: int) -> None:
        content = code.to_bytes(2, "big") + min(retry_after_s, 0xFFFF).to_bytes(2, "big")
        self._put(RecordType.CLOSE, content, now)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._reader.allowed = LEGAL[phase]

    def _drain(self, code: int, now: float, detail: str) -> None:
        """The connection is over; what still arrives is read so that our close arrives, too."""
        self._enter(Phase.DRAINING)
        self._reader = FrameReader(())
        self._deadline = now + self._timing.violation_wait_s
        self._events.append(ConnectionClosed(code, 0, False, False, detail))

    def _end_of_closing(self, detail: str) -> None:
        if self.phase is Phase.CLOSING:
            self._finish(self._close_code, detail=detail)
        else:  # the owner knows
            self._enter(Phase.CLOSED)
            self._deadline = None

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
        self._resumption = b""
        self.work = None
        self._deadline = None
        self._reader = FrameReader(())
        self._events.append(ConnectionClosed(code, retry_after_s, clean, remote, detail, stranger))


def _stranger(data: bytes) -> str:
    """Describe a peer whose first bytes cannot be a Relay server's."""
    for start, protocol in _STRANGERS:
        if data.startswith(start):
            return f"{NOT_RELAY}: it speaks {protocol}"
    return NOT_RELAY
