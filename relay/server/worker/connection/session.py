"""One connection's life on the server: handshake, login, requests, end.

An ``asyncio.Protocol`` around a sans-I/O ``wire.Connection``. What an operation does is in
``commands``; what the connection is owed is in its ``Outbox``. One exception boundary: nothing
that a peer sends leaves this class as an exception, and no exception's text reaches a peer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, cast

from relay import limits
from relay.chat.entries import Submission
from relay.errors import RelayError, RemoteProtocolError
from relay.server.worker.connection import commands
from relay.server.worker.delivery.outbox import Outbox
from relay.wire.codes import CloseCode
from relay.wire.connection import Connection
from relay.wire.envelopes import Ack, Behind, ClientEnvelope, Refused, pack, unpack_client
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    SecretWrapped,
)

if TYPE_CHECKING:
    from relay.server.worker.member.feed import Feed
    from relay.server.worker.process.turn import Hub

LOGIN_S: Final = 20.0
"""From the end of the handshake to WELCOME (handshake.md, "Deadlines")."""
LINGER_S: Final = 3.0
"""How long the last bytes of a closed connection may take to leave."""
TCP_NOTSENT_LOWAT: Final = 25
TCP_CLOSE: Final = 7
TCP_CLOSE_WAIT: Final = 8
"""States in TCP_INFO (linux/tcp_states.h): the peer has reset or ended the connection."""
log = logging.getLogger("relay.worker")


class Hold:
    """Why a connection is not read from: bits. Plain integers, for each send looks at them."""

    NONE: Final = 0
    WINDOW: Final = 1
    """Too many of its sends are unanswered."""
    CREDIT: Final = 2
    """A home that it sends to cannot keep up."""
    BLOCKED: Final = 4
    """An earlier operation waits for another worker; the order of operations is kept."""
    ANSWERS: Final = 8
    """It does not read the answers to what it asks."""


WAITS: Final = Hold.BLOCKED | Hold.ANSWERS
"""Holds under which operations that are here already wait, too."""


class Session(asyncio.Protocol):
    """One connection, from accept to close."""

    __slots__ = (
        "_connection", "_deadline", "_holds", "_hub", "_pending", "_running",
        "_since_us", "_tag", "_transport", "_unwrapping", "answers_queued", "display", "ended",
        "feeds", "name", "outbox", "peer", "producer", "unacknowledged", "unacknowledged_bytes",
    )  # fmt: skip

    _transport: asyncio.Transport
    outbox: Outbox

    def __init__(self, hub: Hub, peer: str) -> None:
        self._hub = hub
        self.peer = peer
        self._since_us = int(hub.clock() * 1_000_000)
        """When it was accepted: tells a client instance from its ghost."""
        self._connection = Connection.server(
            now=hub.clock(),
            random_bytes=hub.random_bytes,
            spki=hub.spki,
            modulus_bytes=hub.modulus_bytes,
            timing=hub.timing,
        )
        self._unwrapping: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        """When the login must be complete, or a closed connection's last bytes have left."""
        self._holds: int = Hold.NONE
        self._pending: list[bytes | ClientEnvelope] = []
        """What was received while an earlier operation waits, the next one last: of one record what
        is left of its operations, before it whole records, not yet looked into (operations take
        many times the room)."""
        self._running = False
        """True while ``_run_pending`` runs: an answer that comes at once need not call it again."""
        self._tag: int | None = None
        """Of the claim of this connection's name; None before HELLO and after the end."""
        self.name = ""
        """Empty until login."""
        self.display = ""
        self.producer = b""
        self.feeds: dict[str, Feed] = {}
        self.answers_queued = False
        self.ended = False
        """True once the connection is closing: no operation has an effect any more."""
        self.unacknowledged = 0
        self.unacknowledged_bytes = 0

    # --- asyncio.Protocol ---------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what kernel and transport hold, and say ServerHello."""
        transport = cast("asyncio.Transport", transport)  # uvloop registers no subclass
        self._transport = transport
        # Paused while the transport holds anything at all: so all that readers leave lying is seen
        # by ``Pressure``, a reader that is behind gets no page on top of the one before, and the
        # outbox may write past the transport whenever it is not paused.
        transport.set_write_buffer_limits(high=0)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, limits.KERNEL_NOTSENT_LOWAT_BYTES)
        self.outbox = Outbox(self._connection, transport, sock.fileno())
        self._hub.sessions.add(self)
        transport.write(self._connection.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        now = self._hub.clock()
        try:
            self._connection.receive_data(data, now)
            self._handle_events(now)
        except Exception:
            log.exception("session_failed", extra={"peer": self.peer})
            self.close(CloseCode.INTERNAL)

    def eof_received(self) -> bool:
        """Take the peer's end of stream."""
        now = self._hub.clock()
        self._connection.receive_eof(now)
        self._handle_events(now)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything about this connection."""
        self._end()
        self.outbox.close()
        if self._unwrapping is not None:
            self._unwrapping.cancel()
        self._hub.pressure.remove(self)
        self._hub.sessions.discard(self)
        self._hub.connection_ended()

    def pause_writing(self) -> None:
        """Stop sealing: the kernel takes no more, and the transport holds the rest."""
        self.outbox.paused = True
        self._hub.pressure.add(self)

    def resume_writing(self) -> None:
        """Go on with what is owed; a member that is behind reads its next page."""
        self.outbox.paused = False
        self._hub.pressure.remove(self)
        self._hub.wake()
        if self.ended:
            return
        self.flush(self._hub.clock())
        if not self.outbox.paused:
            for feed in self.feeds.values():
                member = feed.members[self]
                if not member.live:
                    self._hub.catchup.add(member)

    # --- events of the connection -------------------------------------------------------------
    def _handle_events(self, now: float) -> None:
        for event in self._connection.events():
            match event:
                case ApplicationData(content=content):
                    if not self.ended:
                        self._pending.insert(0, content)
                        self._run_pending()
                case SecretWrapped(ciphertext=ciphertext):
                    self._unwrapping = asyncio.ensure_future(self._unwrap(ciphertext))
                case HandshakeCompleted():
                    self._deadline = now + LOGIN_S
                    self._hub.handshakes += 1
                case ConnectionClosed(detail=detail):
                    log.debug("session_closed", extra={"peer": self.peer, "detail": detail})
                    self._end()
                case _:
                    pass
        self._write_pending()

    async def _unwrap(self, ciphertext: bytes) -> None:
        """Ask the key agent. Without it the handshake ends; the client comes again."""
        hub = self._hub
        try:
            secret = await hub.agent.unwrap(ciphertext, self.peer)
        except RelayError as error:
            log.warning("unwrap_failed", extra={"reason": type(error).__name__})
            self._connection.abort("the key agent is unavailable")
        else:
            self._connection.provide_secret(secret, hub.clock())
        self._unwrapping = None
        self._handle_events(hub.clock())

    def _write_pending(self) -> None:
        pending = self._connection.data_to_send()
        if pending:
            self._transport.write(pending)
        if self._connection.finished and not self._transport.is_closing():
            self._transport.close()
            self._deadline = self._hub.clock() + LINGER_S

    # --- reading or not -----------------------------------------------------------------------
    def _add_hold(self, hold: int) -> None:
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= hold

    def _drop_hold(self, hold: int) -> None:
        if not self._holds & hold:
            return
        self._holds &= ~hold
        self._run_pending()
        if not self._holds and not self._transport.is_closing():
            self._transport.resume_reading()

    def _run_pending(self) -> None:
        """Run what was received, until an operation has to wait. Raises nothing."""
        if self._running:
            return
        self._running = True
        pending = self._pending
        try:
            while pending and not self._holds & WAITS:
                item = pending.pop()
                if isinstance(item, bytes):
                    pending.extend(reversed(unpack_client(item)))
                else:
                    commands.run(self._hub, self, item)
        except RemoteProtocolError as error:
            self.close(error.code, detail=str(error))
        except Exception:
            log.exception("session_failed", extra={"peer": self.peer})
            self.close(CloseCode.INTERNAL)
        finally:
            self._running = False

    def hold(self) -> None:
        """forward.Sender: a home cannot keep up."""
        self._add_hold(Hold.CREDIT)

    def go_on(self) -> None:
        """forward.Sender: it can again."""
        self._drop_hold(Hold.CREDIT)

    def block(self) -> None:
        """Run no later operation until ``unblock``: the one that runs waits for another worker."""
        self._add_hold(Hold.BLOCKED)

    def unblock(self) -> None:
        """Run the operations that have waited, until one of them blocks again."""
        self._drop_hold(Hold.BLOCKED)

    # --- login --------------------------------------------------------------------------------
    @property
    def logged_in(self) -> bool:
        """True after WELCOME."""
        return bool(self.name)

    @property
    def claiming(self) -> bool:
        """True from HELLO on."""
        return self._tag is not None or bool(self.name)

    def log_in(self, name: str, secret: bytes, display: str, producer: bytes) -> None:
        """Claim a name; ``name_answered`` follows, perhaps at once."""
        self.display = display
        self.producer = producer
        self.block()
        self._tag = -1
        tag = self._hub.logins.claim(_Claim(self, name), name, secret, self._since_us)
        if self._tag == -1:
            self._tag = tag
        else:  # answered at once, and refused: the connection has ended
            self._hub.logins.release(tag)

    def welcome(self, name: str) -> None:
        """The name is granted."""
        self._deadline = None
        self.name = name
        self._hub.logged_in += 1
        commands.welcome(self._hub, self)
        self.unblock()

    # --- for commands -------------------------------------------------------------------------
    def answer(self, envelope: bytes) -> None:
        """Queue an answer of this connection's own; it leaves at the end of this turn."""
        if self.ended:
            return
        self.outbox.put(envelope)
        if self.outbox.answers > limits.ANSWERS_BYTES_MAX:
            self._add_hold(Hold.ANSWERS)
        if not self.answers_queued:
            self.answers_queued = True
            self._hub.urgent.append(self)
            self._hub.wake()

    def flush(self, now: float) -> None:
        """Write what the transport takes; go on with operations that waited for that."""
        self.outbox.flush(now)
        if self._holds & Hold.ANSWERS and self.outbox.answers <= limits.ANSWERS_BYTES_MAX // 2:
            self._drop_hold(Hold.ANSWERS)

    def submit(self, submission: Submission) -> None:
        """Offer a message to the log's home; stop reading beyond the window."""
        self.unacknowledged += 1
        self.unacknowledged_bytes += len(submission.body)
        if self._window_full():
            self._add_hold(Hold.WINDOW)
        self._hub.forward.submit(self, submission)

    def _window_full(self) -> bool:
        return (
            self.unacknowledged >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.unacknowledged_bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        )

    def _answered(self, submission: Submission) -> None:
        self.unacknowledged -= 1
        self.unacknowledged_bytes -= len(submission.body)
        if self._holds & Hold.WINDOW and not self._window_full():
            self._drop_hold(Hold.WINDOW)

    def acknowledged(self, submission: Submission, epoch: bytes, seq: int) -> None:
        """forward.Sender: committed."""
        self._answered(submission)
        self.answer(pack(Ack(submission.log, submission.counter, epoch, seq)))

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """forward.Sender: not stored."""
        self._answered(submission)
        self.answer(pack(Refused(submission.log, submission.counter, code, arg, text)))

    # --- falling behind, and the end ----------------------------------------------------------
    def fall_behind(self) -> None:
        """Leave live in every log at once and drop what is queued of them (rule 4)."""
        dropped = self.outbox.drop_batches()
        self._hub.pressure.behind(self.name)
        for feed in self.feeds.values():
            member = feed.members[self]
            if not member.live:
                continue
            first = dropped.get(feed.log)
            epoch, seq = (first.prev_epoch, first.prev) if first else feed.head
            feed.leave_live(member, seq)
            self.answer(pack(Behind(feed.log, epoch, seq)))
            self._hub.catchup.add(member)
        self._hub.wake()

    def close(self, code: int, retry_after_s: int = 0, detail: str = "") -> None:
        """Say goodbye with a close code and end."""
        if self.ended:
            return
        now = self._hub.clock()
        if not self._connection.finished:  # the peer's own close may be in what was just read
            self.outbox.flush(now)
        self._connection.close(code, now, retry_after_s)
        log.debug("session_closing", extra={"peer": self.peer, "code": code, "detail": detail})
        self._end()
        if self._holds:  # the peer's own close must be read
            self._holds = Hold.NONE
            if not self._transport.is_closing():
                self._transport.resume_reading()
        self._write_pending()

    def _end(self) -> None:
        """Leave all logs and give the name back. Idempotent."""
        if self.ended:
            return
        self.ended = True
        self._deadline = None
        self._pending.clear()
        for feed in list(self.feeds.values()):
            commands.leave(self._hub, self, feed)
        self.outbox.clear()
        if self._tag is not None and self._tag != -1:
            self._hub.logins.release(self._tag)
        self._tag = None
        if self.name:
            self._hub.logged_in -= 1

    def check_deadline(self, now: float) -> None:
        """Called by the worker's sweep: handshake and login deadlines, keepalive."""
        if self._deadline is not None and now >= self._deadline:
            if self._connection.finished:
                self.abort()  # it does not even take the last bytes
            else:
                self.close(CloseCode.LOGIN_TIMEOUT)
            return
        if self._holds:  # its pongs may be among what is not read, and so is its end
            if self._holds & Hold.BLOCKED and self._peer_is_gone():
                self.abort()
            return
        deadline = self._connection.next_deadline()
        if deadline is not None and now >= deadline:
            self._connection.handle_deadline(now)
            self._handle_events(now)

    def _peer_is_gone(self) -> bool:
        """Tell what reading would: a client that gave up while a home was away must not stay."""
        sock = self._transport.get_extra_info("socket")
        state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        return state in (TCP_CLOSE, TCP_CLOSE_WAIT)

    @property
    def buffered(self) -> int:
        """Sealed bytes that wait in the transport."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()


class _Claim:
    """logins.Claimant for a session: carries the name until it is granted."""

    __slots__ = ("_name", "_session")

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name

    def name_answered(self, granted: bool) -> None:
        """The name's home has decided."""
        if self._session.ended:
            return
        if granted:
            self._session.welcome(self._name)
        else:
            commands.name_taken(self._session)

    def replaced(self) -> None:
        """The same instance has connected again."""
        self._session.close(CloseCode.REPLACED)
