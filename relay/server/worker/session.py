"""One connection's life on the server: handshake, login, requests, end.

An ``asyncio.Protocol`` around a sans-I/O ``wire.Connection``. What an operation does is in
``commands``; what the connection is owed is in its ``Outbox``. One exception boundary: nothing that a
peer sends leaves this class as an exception, and no exception's text reaches a peer.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final, cast

from relay import limits
from relay.chat.entries import Submission
from relay.errors import RemoteProtocolError
from relay.server.worker import commands
from relay.server.worker.outbox import Outbox
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.connection import Connection
from relay.wire.envelopes import Ack, Behind, Refused, pack, unpack_client
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    SecretWrapped,
)

if TYPE_CHECKING:
    from relay.server.worker.fanout import Feed
    from relay.server.worker.hub import Hub

LOGIN_S: Final = 20.0
"""From the end of the handshake to HELLO (handshake.md, "Deadlines")."""
TCP_NOTSENT_LOWAT: Final = 25
log = logging.getLogger("relay.worker")


class Session(asyncio.Protocol):
    """One connection, from accept to close."""

    __slots__ = (
        "_connection", "_hub", "_login_deadline", "_transport", "_unwrapping", "answers_queued",
        "display", "ended", "feeds", "name", "outbox", "peer", "producer", "reading_paused",
        "unacknowledged", "unacknowledged_bytes",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, hub: Hub, peer: str) -> None:
        self._hub = hub
        self.peer = peer
        self._connection = Connection.server(
            now=hub.clock(),
            random_bytes=hub.random_bytes,
            spki=hub.spki,
            modulus_bytes=hub.modulus_bytes,
        )
        self._unwrapping: asyncio.Task[None] | None = None
        self._login_deadline: float | None = None
        self.name = ""
        """Empty until login."""
        self.display = ""
        self.producer = b""
        self.feeds: dict[str, Feed] = {}
        self.answers_queued = False
        self.ended = False
        """True once the connection is closing: no operation has an effect any more."""
        self.reading_paused = False
        self.unacknowledged = 0
        self.unacknowledged_bytes = 0

    # --- asyncio.Protocol ------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: bound the buffers and send ServerHello."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.TRANSPORT_HIGH_WATER_BYTES)
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(
                socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, limits.KERNEL_NOTSENT_LOWAT_BYTES
            )
        self.outbox = Outbox(self._connection, self._transport)
        self._hub.sessions.add(self)
        self._transport.write(self._connection.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Take bytes from the peer."""
        now = self._hub.clock()
        try:
            self._connection.receive_data(data, now)
            self._handle_events(now)
        except RemoteProtocolError as error:
            self.close(error.code, detail=str(error))
        except Exception:
            log.exception("session_failed", extra={"peer": self.peer})
            self.close(CloseCode.INTERNAL)

    def eof_received(self) -> bool:
        """Take the peer's end of stream."""
        self._connection.receive_eof(self._hub.clock())
        self._handle_events(self._hub.clock())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything about this connection."""
        self._end()
        if self._unwrapping is not None:
            self._unwrapping.cancel()
        self._hub.sessions.discard(self)

    def pause_writing(self) -> None:
        """Stop sealing: the transport is above its high-water mark."""
        self.outbox.paused = True

    def resume_writing(self) -> None:
        """Go on with what is owed; a member that is behind reads its next page."""
        self.outbox.paused = False
        now = self._hub.clock()
        self.outbox.flush(now)
        if not self.outbox.paused:
            for feed in self.feeds.values():
                member = feed.members[self]
                if not member.live:
                    self._hub.catchup.add(member)
            self._hub.wake()

    # --- events of the connection ------------------------------------------------------------------
    def _handle_events(self, now: float) -> None:
        for event in self._connection.events():
            match event:
                case ApplicationData(content=content):
                    for envelope in unpack_client(content):
                        commands.run(self._hub, self, envelope)
                case SecretWrapped(ciphertext=ciphertext):
                    self._unwrapping = asyncio.ensure_future(self._unwrap(ciphertext))
                case HandshakeCompleted():
                    self._login_deadline = now + LOGIN_S
                case ConnectionClosed():
                    self._end()
                case _:
                    pass
        self._write_pending()

    async def _unwrap(self, ciphertext: bytes) -> None:
        """Ask the key agent. Without it the handshake ends; the client comes again."""
        hub = self._hub
        try:
            secret = await hub.agent.unwrap(ciphertext, self.peer)
        except Exception as error:
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
        if self._connection.finished:
            self._transport.close()

    # --- for commands --------------------------------------------------------------------------------
    @property
    def logged_in(self) -> bool:
        """True after WELCOME."""
        return bool(self.name)

    def log_in(self, name: str, display: str, producer: bytes) -> None:
        """Record who this is. The name has been claimed."""
        self.name = name
        self.display = display
        self.producer = producer
        self._login_deadline = None

    def answer(self, envelope: bytes) -> None:
        """Queue an answer of this connection's own; it leaves at the end of this turn."""
        self.outbox.put(envelope)
        if not self.answers_queued and not self.ended:
            self.answers_queued = True
            self._hub.urgent.append(self)
            self._hub.wake()

    def submit(self, submission: Submission) -> None:
        """Offer a message to the log's home; stop reading beyond the window."""
        self.unacknowledged += 1
        self.unacknowledged_bytes += len(submission.body)
        if not self.reading_paused and self._window_full():
            self.reading_paused = True
            self._transport.pause_reading()
        self._hub.home.submit(submission, self)
        self._hub.wake()

    def _window_full(self) -> bool:
        return (
            self.unacknowledged >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.unacknowledged_bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        )

    def _answered(self, submission: Submission) -> None:
        self.unacknowledged -= 1
        self.unacknowledged_bytes -= len(submission.body)
        if self.reading_paused and not self._window_full() and not self._transport.is_closing():
            self.reading_paused = False
            self._transport.resume_reading()

    def acknowledged(self, submission: Submission, epoch: bytes, seq: int) -> None:
        """home.Sender: committed."""
        self._answered(submission)
        self.answer(pack(Ack(submission.log, submission.counter, epoch, seq)))

    def refused(self, submission: Submission, code: ErrorCode, arg: int, text: str) -> None:
        """home.Sender: not stored."""
        self._answered(submission)
        self.answer(pack(Refused(submission.log, submission.counter, int(code), arg, text)))

    # --- falling behind, and the end ---------------------------------------------------------------
    def fall_behind(self) -> None:
        """Leave live in every log at once and drop what is queued of them (rule 4)."""
        dropped = self.outbox.drop_batches()
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
        self.outbox.flush(now)
        self._connection.close(code, now, retry_after_s)
        log.debug("session_closed", extra={"peer": self.peer, "code": code, "detail": detail})
        self._end()
        self._write_pending()

    def _end(self) -> None:
        """Leave all logs and give the name back. Idempotent."""
        self.ended = True
        for feed in list(self.feeds.values()):
            commands.leave(self._hub, self, feed)
        self.outbox.items.clear()
        self.outbox.size = 0
        if self.name:
            self._hub.names.release(self.name, self)
            self.name = ""

    def check_deadline(self, now: float) -> None:
        """Called by the worker's sweep: handshake and login deadlines, keepalive."""
        if self._login_deadline is not None and now >= self._login_deadline:
            self.close(CloseCode.LOGIN_TIMEOUT)
            return
        deadline = self._connection.next_deadline()
        if deadline is not None and now >= deadline:
            self._connection.handle_deadline(now)
            self._handle_events(now)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()
