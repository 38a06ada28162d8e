"""One end of a connection, sans I/O: bytes in, events and bytes out.

The owner feeds ``receive_data`` and drains ``events()`` and ``data_to_send()`` after every call; it
passes in the clock (monotonic seconds) and randomness. Nothing that a peer sends raises here: it
becomes ``ConnectionClosed``. Calling a method that the phase forbids is a bug of ours:
LocalProtocolError. So is any use in a forked child: ForkedConnection, before a byte is created.
"""

from __future__ import annotations

from typing import Final

from relay.errors import ForkedConnection, IllegalFrame, LocalProtocolError, RemoteProtocolError
from relay.wire import fork
from relay.wire.cipher import (
    APP,
    AuthenticationFailed,
    ReceiveCipher,
    RecordLimits,
    RecordType,
    SendCipher,
)
from relay.wire.codes import CloseCode
from relay.wire.endpoint import Endpoint
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    PongReceived,
)
from relay.wire.handshake import (
    OPENSSL,
    ClientHandshake,
    Established,
    RandomBytes,
    Randomised,
    ServerHandshake,
)
from relay.wire.identity import parse_spki
from relay.wire.phases import Phase, Side
from relay.wire.resumption import Resumption
from relay.wire.tickets import TicketKeys
from relay.wire.timing import DEFAULT_TIMING, Timing

PING_BYTES_MAX: Final = 64
PONG_INTERVAL_S: Final = 1.0
"""A ping sooner than this after a pong is dropped, so that pings cannot cause work."""
KEEPALIVE: Final = b"keepalive"
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""
DEFAULT_LIMITS: Final = RecordLimits()


class Connection(Endpoint):
    """One end of a connection."""

    __slots__ = (
        "_last_pong", "_limits", "_pings_unanswered", "_receive", "_send",
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
        super().__init__(side, phase, handshake, timing, deadline)
        self._limits = limits
        self._pings_unanswered = 0
        self._last_pong = float("-inf")

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
        """Return the client's end; it waits for the server to send first.

        Args:
            now: monotonic seconds.
            random_bytes: ``secrets.token_bytes`` or, in tests, a fixed stream.
            limits: usage limits of a traffic key.
            timing: deadlines.
            version_min: the highest version of a handshake completed before under this pin.
            randomised: the operations that OpenSSL randomises itself; replaced for test vectors.
        """
        handshake = ClientHandshake(random_bytes, version_min, randomised)
        deadline = now + timing.handshake_s
        return cls(Side.CLIENT, Phase.AWAIT_SERVER_HELLO, handshake, limits, timing, deadline)

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
            spki: the server's public key, from the key agent.
            modulus_bytes: of that key; computed if not given.
            limits: usage limits of a traffic key.
            timing: deadlines.
            pow_bits: work requested from the client, normally 0.
            randomised: replaced for test vectors.
            tickets: opens and seals tickets; None: there are none.
            ext: of the hello (``messages.pack_ext``).
        """
        handshake = ServerHandshake(random_bytes, spki, pow_bits, randomised, tickets, ext)
        deadline = now + timing.client_key_s
        self = cls(Side.SERVER, Phase.AWAIT_CLIENT_KEY, handshake, limits, timing, deadline)
        self._modulus_bytes = modulus_bytes or parse_spki(spki).modulus_bytes
        self.out += handshake.server_hello()
        return self

    # --- input --------------------------------------------------------------------------------
    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the peer and process all of them. Never raises because of the peer."""
        if not self.finished:
            self._check_process()
        self.feed(data)
        while (content := self.receive_next(now)) is not None:
            if content:
                self._events.append(_new(ApplicationData, (content,)))

    def receive_next(self, now: float) -> bytes | None:
        """Process the next frame that was fed. Never raises because of the peer.

        Returns:
            The content of an app record: there are no events then, and nothing is to be sent. Empty
            for all others. None if there is no whole frame, or if input is no longer processed:
            then nothing has happened.
        """
        reader = self.reader
        if not reader.pending:
            return None
        if self._generation != fork.forks:
            raise ForkedConnection
        try:
            if not reader.allowed:
                raise RemoteProtocolError("bytes out of turn")
            whole = reader.next_frame()
            if whole is None:
                return None
            if self.phase is Phase.OPEN or self.phase is Phase.CLOSING:
                return self._receive_record(whole, now)
            self._receive_handshake(whole, now)
        except AuthenticationFailed as failed:  # mypyc requires a separate name for each type
            self._finish(None, detail=str(failed))
        except RemoteProtocolError as error:
            if self.phase is Phase.AWAIT_SERVER_HELLO and isinstance(error, IllegalFrame):
                self._illegal_hello()
            else:
                self.violated(error, now)
        return b""

    def violated(self, error: RemoteProtocolError, now: float) -> None:
        """End: the peer violated the protocol, here or in a record that the owner examined.

        With keys, the peer is told why, without waiting for its answer; without, nothing is sent.
        """
        if self.phase is Phase.OPEN:
            self._close_at_once(error.code, now, 0, str(error))
        elif self.phase is Phase.CLOSING:
            self._finish(self._close_code, detail=str(error))
        elif self.phase is not Phase.CLOSED and self.phase is not Phase.DRAINING:
            self.out = b""
            self._finish(None, detail=str(error))

    def receive_eof(self, now: float) -> None:
        """Handle the end of the peer's stream, or the loss of the connection."""
        if self.phase is Phase.CLOSING or self.phase is Phase.DRAINING:
            self._end_of_closing("closed without waiting for our close")
        elif self.phase is not Phase.CLOSED:
            self._lost()

    # --- output -------------------------------------------------------------------------------
    def send(self, content: bytes, now: float) -> None:
        """Queue one app record. Raises LocalProtocolError before and after the open phase."""
        if self.phase is not Phase.OPEN:
            raise LocalProtocolError(f"send in phase {self.phase.name}")
        self._put(RecordType.APP, content, now)

    def seal(self, content: bytes, now: float) -> bytes:
        """Return ``data_to_send()`` followed by one app record, to be written at once.

        Raises:
            LocalProtocolError: before and after the open phase.
        """
        if self.phase is not Phase.OPEN:
            raise LocalProtocolError(f"seal in phase {self.phase.name}")
        cipher = self._send
        if self.out or cipher.update_due(now):
            self._put(RecordType.APP, content, now)
            return self.data_to_send()
        return cipher.seal(APP, content)

    def data_to_send(self) -> bytes:
        """Return the bytes for the peer, and clear them."""
        if not self.out:
            return b""
        data = super().data_to_send()
        if self.phase is Phase.OPEN:
            self._send.direct = True
        return data

    @property
    def send_cipher(self) -> SendCipher:
        """Seals app records directly, while it is ``direct``: a delivery to a thousand connections
        then needs none of their other objects. Only from the open phase on.
        """
        return self._send

    def ping(self, payload: bytes, now: float) -> None:
        """Ask the peer for a sign of life."""
        if self.phase is not Phase.OPEN or len(payload) > PING_BYTES_MAX:
            raise LocalProtocolError("no ping now, or its payload is too long")
        self._put(RecordType.PING, payload, now)

    def close(self, code: int, now: float, retry_after_s: int = 0) -> None:
        """End the connection: with a close record if there are keys, otherwise silently."""
        if self.phase is Phase.OPEN:
            self._put_close(code, now, retry_after_s)
            self._close_code = code
            self._enter(Phase.CLOSING)
            self._deadline = now + self._timing.close_wait_s
        elif self.phase not in (Phase.CLOSING, Phase.DRAINING, Phase.CLOSED):
            self._finish(None, detail="closed before the handshake was complete")

    def shed(self, code: int, now: float, retry_after_s: int, detail: str) -> None:
        """End now and drop what was received: with a close record if there are keys.

        As after a violation, further input is read and dropped for a while (``Timing``), so that no
        reset overtakes the close record.
        """
        if self.phase is Phase.OPEN:
            self._close_at_once(code, now, retry_after_s, detail)
        else:
            self.abort(detail)

    def abort(self, reason: str) -> None:
        """Drop the connection at once, without a close record."""
        if self.phase is Phase.DRAINING:
            self.out = b""
            self._end_of_closing(reason)
        elif self.phase is not Phase.CLOSED:
            self.out = b""
            self._finish(None, detail=reason)

    def give_ticket(self, tickets: TicketKeys, now: float) -> bool:
        """Server: queue the ticket for the client's next connection. False: there is none.

        Raises:
            LocalProtocolError: before and after the open phase, and for a second one.
        """
        resumption = self._resumption
        may_give = self.side is Side.SERVER and resumption is not None and resumption.may_give
        if self.phase is not Phase.OPEN or not may_give:
            raise LocalProtocolError(f"a ticket in phase {self.phase.name}, or a second one")
        assert resumption is not None
        content = resumption.give(tickets)
        if content is None:
            return False
        self._put(RecordType.TICKET, content, now)
        return True

    # --- time ---------------------------------------------------------------------------------
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
            self._send.rest()
            self._receive.rest()
        elif self.phase is Phase.CLOSING or self.phase is Phase.DRAINING:
            self._end_of_closing("the peer did not answer our close")
        elif self.phase is not Phase.CLOSED:
            self._late()

    # --- frames -------------------------------------------------------------------------------
    def _established(self, established: Established, now: float) -> None:
        secrets = established.secrets
        mine, theirs = secrets.client, secrets.server
        if self.side is Side.SERVER:
            mine, theirs = theirs, mine
        self._send = SendCipher(mine, self._limits, now)
        self._receive = ReceiveCipher(theirs, self._limits, now)
        self.login_binding = established.login_binding
        self._resumption = Resumption(established.resumption)
        self._handshake = None
        self._enter(Phase.OPEN)
        self._send.direct = not self.out
        self._deadline = now + self._timing.ping_after_s
        self._events.append(HandshakeCompleted(established.mode, established.fell_back))

    def _receive_record(self, whole: bytes, now: float) -> bytes:
        """Process a record. See ``receive_next`` for what is returned."""
        record_type, content = self._receive.open(whole)
        if self.phase is Phase.OPEN:
            self._pings_unanswered = 0
            self._deadline = now + self._timing.ping_after_s
            if record_type == APP:
                if content and not self._events:
                    return content
                self._events.append(_new(ApplicationData, (content,)))
        if record_type == RecordType.CLOSE:
            self._receive_close(content, now)
        elif record_type == RecordType.KEY_UPDATE:
            if content:
                raise RemoteProtocolError("a key update with a content")
            self._receive.accept_update(now)
        elif record_type == RecordType.PING:
            if len(content) > PING_BYTES_MAX:
                raise RemoteProtocolError("a ping that is too long")
            if self.phase is Phase.OPEN and now - self._last_pong >= PONG_INTERVAL_S:
                self._last_pong = now
                self._put(RecordType.PONG, content, now)
        elif record_type == RecordType.PONG:
            if len(content) > PING_BYTES_MAX:
                raise RemoteProtocolError("a pong that is too long")
            if content != KEEPALIVE:
                self._events.append(PongReceived(content))
        elif record_type == RecordType.TICKET:
            if self._resumption is None or self.side is Side.SERVER:
                raise RemoteProtocolError("a ticket from a client")
            self._events.append(self._resumption.receive(content))
        elif record_type != RecordType.APP:
            raise RemoteProtocolError("an unknown type of record")
        return b""

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
            self.out += cipher.seal(RecordType.KEY_UPDATE, b"")
            cipher.update(now)
        self.out += cipher.seal(record_type, content)
        cipher.direct = False

    def _enter(self, phase: Phase) -> None:
        if self.phase is Phase.OPEN:
            self._send.direct = False
        super()._enter(phase)

    def _put_close(self, code: int, now: float, retry_after_s: int) -> None:
        content = code.to_bytes(2, "big") + min(retry_after_s, 0xFFFF).to_bytes(2, "big")
        self._put(RecordType.CLOSE, content, now)

    def _close_at_once(self, code: int, now: float, retry_after_s: int, detail: str) -> None:
        """End; further input is still read, so that our close arrives."""
        self._put_close(code, now, retry_after_s)
        if self.side is Side.CLIENT or self._timing.violation_wait_s <= 0:
            self._finish(code, detail=detail)
            return
        self._enter(Phase.DRAINING)
        self.reader.close()
        self._deadline = now + self._timing.violation_wait_s
        self._events.append(ConnectionClosed(code, 0, False, False, detail))
