"""The life of one connection on the server: handshake, login, operations, end.

Its bytes are encrypted by its ``Channel``. The operations are in ``commands``, pending output in
``Outbox``, and the followed logs in ``Subscriptions``. There is one exception boundary: whatever a
peer sends, no exception leaves this class, and the text of an exception is never sent to a peer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from relay import limits
from relay.chat.rooms.rights import Actor
from relay.errors import RemoteProtocolError
from relay.server.metrics import Budget, Closed
from relay.server.worker.connection.budgets.waste import of_request
from relay.server.worker.connection.channel import NO_KEY_AGENT, Channel
from relay.server.worker.connection.counts import count_failed_handshake, count_handshake
from relay.server.worker.connection.owner import Owner
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.reading import Reading
from relay.server.worker.connection.sends import Sends
from relay.server.worker.connection.stages import ENDED, NEXT, Stage
from relay.server.worker.member.reply import RequestRunner
from relay.server.worker.member.routes import NO_ANSWER
from relay.server.worker.member.subscriptions import NOBODY, Subscriptions
from relay.server.worker.out_of_memory import exit_if_out_of_memory
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import ClientEnvelope, Error
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    Event,
    HandshakeCompleted,
    SecretWrapped,
)
from relay.wire.packing import pack

if TYPE_CHECKING:
    from relay.server.worker.connection.budgets.source_usage import Source
    from relay.server.worker.connection.budgets.users import User
    from relay.server.worker.connection.listings import Listings
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.delivery.stream import Stream
    from relay.server.worker.member.claims import NameClaim
    from relay.server.worker.member.reply import Request

NOTHING: Final[Mapping[type, Operation]] = {}
"""Operations allowed before the login and after the end."""
log = logging.getLogger("relay.worker")


class Session(Owner):
    """One connection, from accept to close. A ``stream.Receiver``, an ``admission.Connection``."""

    __slots__ = (
        "_connection", "_legal", "_on_lost", "_operations", "attempts", "channel", "claim",
        "former", "id", "listings", "outbox", "peer", "proofs", "reading", "requests", "sends",
        "services", "since_us", "source", "stage", "stream", "subscriptions", "turned_away", "user",
    )  # fmt: skip

    __deletable__ = ("requests", "sends", "subscriptions")  # required by mypyc: see ``lost``

    def __init__(
        self,
        services: ConnectionServices,
        stream: Stream,
        source: Source,
        operations: Operations,
        on_lost: Callable[[Session], None],
        on_watch: Callable[[Any], None],
        id_: str,
    ) -> None:
        """Create a session whose socket is not connected yet.

        Args:
            services: of this worker.
            stream: not connected yet.
            source: of the peer.
            operations: the operations allowed in each stage, with their functions.
            on_lost: called when the socket is closed.
            on_watch: called when a deadline may have become earlier (``deadlines``).
            id_: identifies the connection in the log and to an operator.
        """
        super().__init__(on_watch, NOBODY)
        self.services = services
        self.stream = stream
        self.source = source
        self._operations = operations
        self._on_lost = on_lost
        self.id = id_
        self.peer = stream.peer
        self.since_us = int(services.clock() * 1_000_000)
        """When it was accepted. Distinguishes a client instance from its own earlier connection."""
        self.channel = Channel(services, stream, self)
        self._connection = self.channel.connection
        self.outbox = services.flusher.outbox(self._connection, stream)
        budgets = services.budgets
        self.subscriptions = Subscriptions(services.following, self.outbox, self)
        self.stage = Stage.HANDSHAKE
        self._legal: Mapping[type, Operation] = NOTHING
        """The operations allowed in the current stage."""
        self.reading = Reading(
            self, self._connection, stream, schedule=services.schedule, received=budgets.received,
            waste=budgets.waste, source=source, clock=services.clock,
        )  # fmt: skip
        self.requests = RequestRunner(self)
        self.claim: NameClaim | None = None
        """The claim of this connection's name, from HELLO on."""
        self.turned_away = False
        """True if the connection was accepted only to report that the server is full."""
        self.attempts = 0
        """Requests made before the login."""
        self.proofs = 0
        """Number of proofs of the next key that were requested."""
        self.former: dict[bytes, bytes] | None = None
        """Keys of earlier accounts with this name (``former``); None until they are needed."""
        self.listings: Listings | None = None  # created by ``room_lists``
        self.user: User | None = None
        """Usage of the account, from the login to the end; None for a guest."""
        self.sends = Sends(
            self, self.reading, self.outbox, services.forward,
            services.spending(source, None, self), budgets.refusals, services.clock,
            services.durability,
        )  # fmt: skip
        self.reading.sends = self.sends

    @property
    def silent(self) -> bool:
        """admission.Connection: True if the peer must act next."""
        if self.ended:
            return self.stream.connected
        # A connection that is throttled for useless requests is not waiting for the server.
        pauses = self.reading.pauses & ~Pause.WASTE
        waits_for_us = self.channel.unwrapping or pauses or not self.stream.connected
        return not waits_for_us and self.stage in (Stage.HANDSHAKE, Stage.HELLO)

    def enter(self, stage: Stage) -> None:
        """Enter the next stage."""
        assert stage in NEXT[self.stage], f"{self.stage} is not followed by {stage}"
        self.stage = stage
        self.ended = stage in ENDED
        self._legal = self._operations.get(stage, NOTHING)

    # --- stream.Receiver ----------------------------------------------------------------------
    def connected(self) -> None:
        """Send ServerHello."""
        self.channel.write_pending()

    def ended_by_peer(self) -> None:
        """Handle the peer's end of stream."""
        self.channel.receive_eof(self.services.clock())

    def writable(self) -> None:
        """Continue with pending output. A reader that is behind gets its next page."""
        self.services.wakeup.request()
        if self.ended:
            return
        self.outbox.flush(self.services.clock())
        if not self.outbox.paused:
            self.subscriptions.resume()

    def lost(self) -> None:
        """Release everything that belongs to this connection."""
        self._end(None)
        self.enter(Stage.LOST)
        self.channel.end()
        self.reading.end()
        self._on_lost(self)
        # These refer back to this object. Breaking the cycle frees the memory now. Otherwise a
        # flood of short connections would hold many times the memory of its slots.
        del self.sends, self.subscriptions, self.requests

    # --- events of the connection -------------------------------------------------------------
    def handle_events(self, events: list[Event], now: float) -> None:
        """owner.Owner: handle events of the connection. May raise RemoteProtocolError."""
        for event in events:
            match event:
                case ApplicationData(content=content):
                    if not self.ended:
                        self.reading.unpack(content)
                case SecretWrapped(ciphertext=ciphertext):
                    self.channel.unwrap(ciphertext)
                case HandshakeCompleted(mode=mode, fell_back=fell_back):
                    self.channel.await_login(now)
                    count_handshake(self.services.counts, mode, fell_back=fell_back)
                    self.enter(Stage.HELLO)
                    if self.turned_away:
                        retry_s = self.services.overloaded_retry_s
                        self.close(CloseCode.OVERLOADED, retry_s, "no descriptors")
                case ConnectionClosed(code=code, remote=remote, detail=detail):
                    log.debug(
                        "session_closed",
                        extra={"connection": self.id, "peer": self.peer, "detail": detail},
                    )
                    self._end(Closed.CLIENT if remote and code is not None else code, detail)
                    self.reading.read_to_the_end()

    def write_pending(self) -> None:
        """owner.Owner: write the connection's pending bytes."""
        self.channel.write_pending()

    def on_keys(self, now: float) -> None:
        """owner.Owner: continue with bytes that arrived while the key agent was asked."""
        if self._connection.reader.pending:
            self.reading.work(now)

    # --- operations ---------------------------------------------------------------------------
    def run(self, envelope: ClientEnvelope) -> None:
        """owner.Owner: run one operation. May raise."""
        operation = self._legal.get(type(envelope))
        if operation is None:
            if not self.ended:
                name = type(envelope).__name__.upper()
                raise RemoteProtocolError(f"{name} is not legal in stage {self.stage.value}")
            return
        request = operation(self, envelope)
        if request is not None and self.requests.start(request, getattr(envelope, "request", 0)):
            if self.ended:
                self.requests.cancel()
            else:
                self.reading.pause(Pause.REQUEST)
                if not self.before_login:  # otherwise it is watched already
                    self.watch()
        if self.outbox.answers > limits.ANSWERS_BYTES_MAX:
            self.wait_for_reader()

    def request_ended(self) -> None:
        """reply.Requester: continue with the operations after the request."""
        self.reading.resume(Pause.REQUEST)

    def unanswered(self, number: int) -> None:
        """reply.Requester: report that a request got no answer and may be repeated."""
        if number and self.stage is Stage.READY:
            self.refuse(number, ErrorCode.UNAVAILABLE, limits.RETRY_MS, NO_ANSWER)
        else:
            self.close(CloseCode.LOGIN_UNAVAILABLE, self.services.overloaded_retry_s, NO_ANSWER)

    def count_joins(self, change: int) -> None:
        """subscriptions.Follower: count followed logs for the source."""
        self.services.budgets.sources.count_joins(self.source, change)

    def shed(self) -> None:
        """owner.Owner: close, asking for a reconnect: this connection holds the most bytes."""
        now = self.services.clock()
        self.services.budgets.refusals.count(Budget.RECEIVED, self.source.name, now)
        retry_s = self.services.overloaded_retry_s
        self._connection.shed(CloseCode.OVERLOADED, now, retry_s, "too much unprocessed data")
        self.channel.settle(now)

    def failed(self, error: Exception) -> None:
        """End the connection after a protocol violation by the peer or a bug of ours."""
        if isinstance(error, RemoteProtocolError):
            self.close(error.code, detail=str(error))
        else:
            exit_if_out_of_memory(error)
            extra = {"connection": self.id, "peer": self.peer}
            log.error("session_failed", extra=extra, exc_info=error)
            self.close(CloseCode.INTERNAL)

    def wait_for_reader(self) -> None:
        """owner.Owner: run no operations until the client has read its answers."""
        if not self.reading.pauses & Pause.ANSWERS and not self.ended:
            self.reading.pause(Pause.ANSWERS)
            self.outbox.on_answers_read = partial(self.reading.resume, Pause.ANSWERS)

    def rebound(self) -> None:
        """Use the current limits for spending."""
        self.sends.spend_by(self.services.spending(self.source, self.user, self))

    # --- for operations -----------------------------------------------------------------------
    @property
    def name(self) -> str:
        """The name of the account; empty until the login."""
        return self.actor.handle

    def logged_in(self, actor: Actor, key_id: bytes) -> None:
        """Complete the login of an account and a device."""
        self.enter(Stage.READY)
        self.channel.logged_in()
        self.before_login = False
        self.reading.logged_in()
        self.actor = self.subscriptions.actor = actor
        self.key_id = key_id
        self.outbox.rush = self.services.budgets.admission.log_in(self, self.services.clock())
        if actor.root:
            self.user = self.services.budgets.users.open(actor.handle)
            self.rebound()

    def end_with(self, code: CloseCode, refusal: int = 0) -> None:
        """Close: the login is no longer valid. An ErrorCode other than 0 is sent first."""
        if refusal:
            self.refuse(0, refusal)
        self.close(code)

    @property
    def welcomed(self) -> bool:
        """announcement.Recipient: True from the login to the end."""
        return self.stage is Stage.READY

    def answer(self, envelope: bytes) -> None:
        """Queue an answer to this connection; it is sent at the end of this turn."""
        self.outbox.answer(envelope)

    def tell(self, envelope: bytes) -> None:
        """Queue a notification. A client that does not read misses it."""
        if self.welcomed and self.outbox.answers <= limits.ANSWERS_BYTES_MAX:
            self.outbox.answer(envelope)

    def refuse(self, request: int, code: int, arg: int = 0, text: str = "") -> None:
        """Answer a request with ERROR. ``code`` is an ErrorCode."""
        self.outbox.answer(pack(Error(request, int(code), arg, text)))
        self.reading.waste(of_request(code))

    # --- the end ------------------------------------------------------------------------------
    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """Send a close code and end."""
        if self.ended:
            return
        now = self.services.clock()
        if not self._connection.finished:  # the last read may have contained the peer's own close
            self.outbox.flush(now)
        self._connection.close(code, now, retry_after_s)
        log.debug(
            "session_closing",
            extra={"connection": self.id, "peer": self.peer, "code": code, "detail": detail},
        )
        self._end(code, detail)
        self.reading.read_to_the_end()
        self.write_pending()

    def _end(self, code: Closed | int | None, detail: str = "") -> None:
        """Stop following all logs and release the name. Idempotent.

        ``code`` is ours; ``Closed`` if the client closed; None if it ended without a close.
        """
        if self.ended:
            return
        services = self.services
        if self.stage is Stage.HANDSHAKE:
            count_failed_handshake(services.counts, code, no_agent=detail == NO_KEY_AGENT)
        else:
            lasted_s = services.clock() - self.since_us / 1e6
            services.endings.add(self.id, self.name, self.peer, code, lasted_s, detail)
        if self.stage is Stage.READY:
            services.budgets.admission.log_out(self)
        if self.user is not None:
            services.budgets.users.close(self.user)
        self.enter(Stage.CLOSING)
        self.channel.ending()
        self.reading.drop_operations()
        self.subscriptions.leave_all()
        self.outbox.close()
        self.requests.cancel()
        claim, self.claim = self.claim, None
        if claim is not None:
            services.claims.release(claim)

    def make_room(self) -> None:
        """admission: close for another connection. The reason is sent once there are keys."""
        # It is silent, so no bytes are unread: the close record is sent before the end of stream.
        self.close(CloseCode.OVERLOADED, self.services.overloaded_retry_s, "it made room")
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.stream.abort()


Operation: TypeAlias = "Callable[[Session, Any], Request | None]"
"""The function for an envelope; returns a coroutine to wait. May raise RemoteProtocolError."""
Operations: TypeAlias = Mapping[Stage, Mapping[type, Operation]]
