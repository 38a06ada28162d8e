"""One connection's life on the server: handshake, login, operations, end.

Joins a sans-I/O ``wire.Connection`` to a stream. What an operation does is in ``commands``; what
the connection is owed is in its ``Outbox``, what it follows in its ``Subscriptions``. One exception
boundary: nothing that a peer sends leaves this class as an exception, and no exception's text
reaches a peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from relay import limits
from relay.errors import RelayError, RemoteProtocolError
from relay.server.worker.connection.holds import Hold
from relay.server.worker.connection.requests import RequestRunner
from relay.server.worker.connection.schedule import (
    ENVELOPES_PER_UNIT,
    RECORD_UNITS,
    UNITS,
    UNITS_PER_TURN,
)
from relay.server.worker.connection.stages import ENDED, NEXT, Stage
from relay.server.worker.member.subscriptions import Subscriptions
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.connection import Connection
from relay.wire.envelopes import Ack, ClientEnvelope, Error, Refused, pack, unpack_client
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    Event,
    HandshakeCompleted,
    SecretWrapped,
)

if TYPE_CHECKING:
    from relay.chat.entries import Submission
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.delivery.stream import Stream
    from relay.server.worker.member.claims import NameClaim
    from relay.server.worker.member.reply import Request

LOGIN_S: Final = 20.0
"""From the end of the handshake to WELCOME (docs/protocol.md, "Deadlines")."""
LINGER_S: Final = 2.0
"""How long the last bytes of a closed connection may take to leave."""
log = logging.getLogger("relay.worker")


class Session:
    """One connection, from accept to close. A ``stream.Receiver`` and a ``forward.Sender``."""

    __slots__ = (
        "_connection", "_deadline", "_holds", "_legal", "_on_lost", "_operations", "_pending",
        "_requests", "_running", "_stream", "_unwrapping", "claim", "ended", "name", "outbox",
        "producer", "services", "since_us", "stage", "subscriptions", "unacknowledged",
        "unacknowledged_bytes",
    )  # fmt: skip

    def __init__(
        self,
        services: ConnectionServices,
        stream: Stream,
        operations: Operations,
        on_lost: Callable[[Session], None],
    ) -> None:
        """Begin, unconnected.

        Args:
            services: of this worker.
            stream: not connected yet.
            operations: what may be asked in each stage, and what does it.
            on_lost: called when the socket is closed.
        """
        self.services = services
        self._stream = stream
        self._operations = operations
        self._on_lost = on_lost
        now = services.clock()
        self.since_us = int(now * 1_000_000)
        """When it was accepted: tells a client instance from its ghost."""
        self._connection = Connection.server(
            now=now,
            random_bytes=services.random_bytes,
            spki=services.spki,
            modulus_bytes=services.modulus_bytes,
            timing=services.timing,
        )
        self.outbox = services.flusher.outbox(self._connection, stream)
        self.subscriptions = Subscriptions(services.following, self.outbox, self.close)
        self.stage = Stage.HANDSHAKE
        self.ended = False
        """True once the connection is closing: no operation has an effect any more."""
        self._legal: Mapping[type, Operation] = {}
        """Of ``operations``, those of this stage."""
        self._deadline: float | None = None
        """When the login must be complete, or a closed connection's last bytes have left."""
        self._holds: int = Hold.NONE
        self._pending: list[ClientEnvelope] = []
        """What is left of the operations of one record, the next one last. Records behind it stay
        bytes: operations take many times the room."""
        self._running = False
        """True while ``_work`` runs."""
        self._unwrapping: asyncio.Task[None] | None = None
        self._requests = RequestRunner(self._request_ended, self._failed)
        self.claim: NameClaim | None = None
        """Of this connection's name, from HELLO on."""
        self.name = ""
        """Empty until login."""
        self.producer = b""
        self.unacknowledged = 0
        self.unacknowledged_bytes = 0

    @property
    def peer(self) -> str:
        """The peer's address."""
        return self._stream.peer

    def enter(self, stage: Stage) -> None:
        """Go to the next stage."""
        assert stage in NEXT[self.stage], f"{self.stage} is not followed by {stage}"
        self.stage = stage
        self.ended = stage in ENDED
        self._legal = self._operations.get(stage, {})

    # --- stream.Receiver ----------------------------------------------------------------------
    def connected(self) -> None:
        """Send ServerHello."""
        self._stream.write(self._connection.data_to_send())

    def received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._connection.feed(data)
        if self._holds & Hold.TURN:
            return  # it is queued already
        now = self.services.clock()
        if self.ended:
            self._settle(now)  # it may have sent too much after the end
        if self.services.schedule.has_time(now):
            self._work(now)
        else:
            self._wait_for_turn()

    def ended_by_peer(self) -> None:
        """Take the peer's end of stream."""
        now = self.services.clock()
        self._connection.receive_eof(now)
        self._settle(now)

    def writable(self) -> None:
        """Go on with what is owed; a reader that is behind gets its next page."""
        self.services.wakeup.request()
        if self.ended:
            return
        self.outbox.flush(self.services.clock())
        if not self.outbox.paused:
            self.subscriptions.resume()

    def lost(self) -> None:
        """Forget everything about this connection."""
        self._end()
        self.enter(Stage.LOST)
        if self._unwrapping is not None:
            self._unwrapping.cancel()
        self._on_lost(self)

    # --- events of the connection -------------------------------------------------------------
    def _handle_events(self, events: list[Event], now: float) -> None:
        """Take what has happened. May raise RemoteProtocolError: an envelope is illegal."""
        for event in events:
            match event:
                case ApplicationData(content=content):
                    if not self.ended:
                        assert not self._pending, "one record at a time is looked into"
                        self._pending = unpack_client(content)
                        self._pending.reverse()
                case SecretWrapped(ciphertext=ciphertext):
                    self._unwrapping = asyncio.ensure_future(self._unwrap(ciphertext))
                case HandshakeCompleted():
                    self._deadline = now + LOGIN_S
                    self.services.counts.handshakes += 1
                    self.enter(Stage.HELLO)
                case ConnectionClosed(detail=detail):
                    log.debug("session_closed", extra={"peer": self.peer, "detail": detail})
                    self._end()
                    self._read_to_the_end()
                case _:
                    pass

    def _settle(self, now: float) -> None:
        """Take what has happened to the connection without a frame, and write what it owes."""
        self._handle_events(self._connection.events(), now)
        self._write_pending()

    async def _unwrap(self, ciphertext: bytes) -> None:
        """Ask the key agent. Without it the handshake ends; the client comes again."""
        services = self.services
        try:
            secret = await services.agent.unwrap(ciphertext, self.peer)
        except RelayError as error:
            log.warning("unwrap_failed", extra={"reason": type(error).__name__})
            self._connection.abort("the key agent is unavailable")
        else:
            self._connection.provide_secret(secret, services.clock())
        self._unwrapping = None
        now = services.clock()
        self._settle(now)
        self._work(now)

    def _write_pending(self) -> None:
        pending = self._connection.data_to_send()
        if pending:
            self._stream.write(pending)
        if self._connection.finished and not self._stream.closing:
            self._stream.close()
            self._deadline = self.services.clock() + LINGER_S

    # --- operations ---------------------------------------------------------------------------
    def _work(self, now: float) -> None:
        """Handle what was received, up to this connection's share. Raises nothing."""
        if self._running:
            return
        self._running = True
        units = UNITS_PER_TURN
        connection = self._connection
        control = False
        try:
            while not self._holds:
                if self._pending:
                    envelope = self._pending.pop()
                    units -= UNITS.get(type(envelope), 1)
                    self._run(envelope)
                elif connection.receive_next(now):
                    events = connection.events()
                    if len(events) == 1 and type(events[0]) is ApplicationData:
                        # Nearly every record: nothing has to be written for it.
                        if not self.ended:
                            self._pending = unpack_client(events[0].content)
                            self._pending.reverse()
                    else:
                        control = True
                        self._handle_events(events, now)
                    units -= RECORD_UNITS + len(self._pending) // ENVELOPES_PER_UNIT
                else:
                    break
                if units <= 0:
                    self._wait_for_turn()
        except Exception as error:  # noqa: BLE001 - nothing that a peer sends leaves this class
            self._failed(error)
        finally:
            self._running = False
        if control:
            self._write_pending()

    def _run(self, envelope: ClientEnvelope) -> None:
        operation = self._legal.get(type(envelope))
        if operation is None:
            if not self.ended:
                name = type(envelope).__name__.upper()
                raise RemoteProtocolError(f"{name} is not legal in stage {self.stage.value}")
            return
        request = operation(self, envelope)
        if request is not None and self._requests.start(request):
            if self.ended:
                self._requests.cancel()
            else:
                self._add_hold(Hold.REQUEST)
        if self.outbox.answers > limits.ANSWERS_BYTES_MAX:
            self._wait_for_reader()

    def _request_ended(self) -> None:
        self._drop_hold(Hold.REQUEST)

    def _failed(self, error: Exception) -> None:
        """End the connection: the peer broke the protocol, or we have a bug."""
        if isinstance(error, RemoteProtocolError):
            self.close(error.code, detail=str(error))
        else:
            log.error("session_failed", extra={"peer": self.peer}, exc_info=error)
            self.close(CloseCode.INTERNAL)

    def _wait_for_turn(self) -> None:
        """Read nothing more until this session's turn has come round."""
        self._add_hold(Hold.TURN)
        self.services.schedule.add(self)

    def take_turn(self, now: float) -> None:
        """schedule.Scheduled: go on with what was received."""
        self._drop_hold(Hold.TURN)

    def _wait_for_reader(self) -> None:
        """Run nothing more until the client has read its answers."""
        if not self._holds & Hold.ANSWERS and not self.ended:
            self._add_hold(Hold.ANSWERS)
            self.outbox.on_answers_read = self._answers_read

    def _answers_read(self) -> None:
        self._drop_hold(Hold.ANSWERS)

    # --- reading or not -----------------------------------------------------------------------
    def _add_hold(self, hold: int) -> None:
        if not self._holds:
            self._stream.pause_reading()
        self._holds |= hold

    def _drop_hold(self, hold: int) -> None:
        if not self._holds & hold:
            return
        self._holds &= ~hold
        if not self._holds:
            self._work(self.services.clock())
            if not self._holds:
                self._stream.resume_reading()

    def pause_reading(self) -> None:
        """forward.Sender: a home cannot keep up."""
        self._add_hold(Hold.CREDIT)

    def resume_reading(self) -> None:
        """forward.Sender: it can again."""
        self._drop_hold(Hold.CREDIT)

    # --- for operations -----------------------------------------------------------------------
    def logged_in(self, name: str) -> None:
        """The client has this name from now on."""
        self.enter(Stage.READY)
        self._deadline = None
        self.name = self.subscriptions.name = name
        self.services.counts.logged_in += 1

    def replaced(self) -> None:
        """The same client instance has connected again."""
        self.close(CloseCode.REPLACED)

    def answer(self, envelope: bytes) -> None:
        """Queue an answer of this connection's own; it leaves at the end of this turn."""
        self.outbox.answer(envelope)

    def refuse(self, request: int, code: ErrorCode, arg: int = 0, text: str = "") -> None:
        """Answer a request with ERROR."""
        self.outbox.answer(pack(Error(request, int(code), arg, text)))

    def submit(self, submission: Submission) -> None:
        """Offer a message to the log's home; stop reading beyond the window."""
        self.unacknowledged += 1
        self.unacknowledged_bytes += len(submission.body)
        if self._window_full():
            self._add_hold(Hold.WINDOW)
        self.services.forward.submit(self, submission)

    def _window_full(self) -> bool:
        return (
            self.unacknowledged >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.unacknowledged_bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        )

    def _window_half_empty(self) -> bool:
        return (
            self.unacknowledged <= limits.SENDS_UNACKNOWLEDGED_MAX // 2
            and self.unacknowledged_bytes <= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX // 2
        )

    def _answered(self, submission: Submission, envelope: bytes) -> None:
        self.unacknowledged -= 1
        self.unacknowledged_bytes -= len(submission.body)
        if self.ended:
            return
        self.outbox.answer(envelope)
        if self.outbox.answers > limits.ANSWERS_BYTES_MAX:
            self._wait_for_reader()
        if self._holds & Hold.WINDOW and self._window_half_empty():
            self._drop_hold(Hold.WINDOW)

    def acknowledged(self, submission: Submission, epoch: bytes, seq: int) -> None:
        """forward.Sender: committed."""
        self._answered(submission, pack(Ack(submission.log, submission.counter, epoch, seq)))

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """forward.Sender: not stored."""
        envelope = pack(Refused(submission.log, submission.counter, code, arg, text))
        self._answered(submission, envelope)

    # --- the end ------------------------------------------------------------------------------
    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """Send a close code and end."""
        if self.ended:
            return
        now = self.services.clock()
        if not self._connection.finished:  # the peer's own close may be in what was just read
            self.outbox.flush(now)
        self._connection.close(code, now, retry_after_s)
        log.debug("session_closing", extra={"peer": self.peer, "code": code, "detail": detail})
        self._end()
        self._read_to_the_end()
        self._write_pending()

    def _read_to_the_end(self) -> None:
        """Whatever kept this connection from being read is over: the peer's close must be read.

        Nor may a violation end it with bytes unread: the kernel's reset would overtake our close.
        """
        if self._holds & ~Hold.TURN:
            queued = self._holds & Hold.TURN
            self._holds = Hold.TURN
            if not queued:
                self.services.schedule.add(self)

    def _end(self) -> None:
        """Leave all logs and give the name back. Idempotent."""
        if self.ended:
            return
        if self.stage is Stage.READY:
            self.services.counts.logged_in -= 1
        self.enter(Stage.CLOSING)
        self._deadline = None
        self._pending.clear()
        self.subscriptions.leave_all()
        self.outbox.close()
        self._requests.cancel()
        claim, self.claim = self.claim, None
        if claim is not None:
            self.services.claims.release(claim)

    def check_deadline(self, now: float) -> None:
        """Called by the worker's sweep: handshake and login deadlines, keepalive."""
        if self._deadline is not None and now >= self._deadline:
            if self._connection.finished:
                self.abort()  # it does not even take the last bytes
            else:
                self.close(CloseCode.LOGIN_TIMEOUT)
            return
        if self._holds:  # its pongs may be among what is not read, and so is its end
            if self._holds & Hold.REQUEST and self._stream.peer_is_gone():
                self.abort()
            return
        deadline = self._connection.next_deadline()
        if deadline is not None and now >= deadline:
            self._connection.handle_deadline(now)
            self._settle(now)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._stream.abort()


Operation: TypeAlias = "Callable[[Session, Any], Request | None]"
"""What an envelope does, at once or (a coroutine) after it has waited. May raise
RemoteProtocolError: the peer broke the protocol."""
Operations: TypeAlias = Mapping[Stage, Mapping[type, Operation]]
