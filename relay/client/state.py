"""A client without I/O: all of its decisions, over a ``wire.Connection``.

A *pump* (``aio.pump``, ``blocking.pump``) owns a socket and a clock. It dials when ``state`` is
CONNECTING, feeds ``receive_data``, writes ``data_to_send`` after every call (after ``chat.take``,
if that sets ``chat.rooms.flush_due``), and keeps one timer for ``next_deadline``. Connections are
managed here: login, the server's key, back-off. What is sent over them (rooms, requests, sends) is
managed by ``chat``, which the clients that programs use call directly. So the same code runs in
every client, and in tests without a socket.

The life of a client::

    CONNECTING --dial--> handshake --HELLO/WELCOME--> ONLINE --lost or 1000-1999--> WAITING --+
        ^                                                |                                    |
        +------------------------------------------------|------ after the back-off ----------+
    CLOSED: close(), a final close code, a key that is not trusted, a refused name
"""

from __future__ import annotations

import logging
from typing import Final

from relay.chat.accounts.chain import Pin
from relay.chat.names import normal
from relay.client.backoff import Backoff
from relay.client.candidates import AddressHistory
from relay.client.chat_state import ChatState
from relay.client.closes import error_of_end
from relay.client.connection_deadlines import ConnectionDeadlines, timing_of
from relay.client.errors import ClientClosed, ClientError, HandshakeFailed, ServerBrokeProtocol
from relay.client.events import State, StateChanged
from relay.client.login import Login
from relay.client.options import Options
from relay.client.packing import pack_records
from relay.client.proof import server_id_bytes
from relay.client.server_key import ServerKey
from relay.client.tickets import Tickets
from relay.errors import RemoteProtocolError
from relay.wire.codes import CloseCode, may_reconnect
from relay.wire.connection import Connection
from relay.wire.envelopes import ServerEnvelope, Welcome
from relay.wire.events import (
    ApplicationData,
    ConnectionClosed,
    HandshakeCompleted,
    ServerKeyOffered,
    TicketReceived,
)
from relay.wire.messages import RESUMED, Work
from relay.wire.packing import unpack_server
from relay.wire.phases import Phase

log: Final = logging.getLogger(__name__)


class ClientState:
    """One client instance, across all its connections."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._connection: Connection | None = None
        """None between connections."""
        self._backoff = Backoff(options.jitter)
        self.chat = ChatState(options)
        """What is sent over the connections."""
        self.login = Login(
            options.name,
            options.identity,
            options.display,
            options.agent,
            options.random_bytes,
            enrol=options.enrol,
        )
        """The login of the client."""
        self.key = ServerKey(options.expected_key)
        """The server's key and its expected value."""
        self._ending: ClientError | None = None
        """Why this side is ending the connection, permanently; None: it is not."""
        self._deadlines = ConnectionDeadlines()
        self.addresses = AddressHistory()
        self._tickets = Tickets()

        self.state = State.CONNECTING
        self.error: ClientError | None = None
        """Why the client is CLOSED; None: it was closed by ``close``, or is not closed."""
        self.last_problem: ClientError | None = None
        """Why the last connection ended or could not be established; None: nothing has happened
        yet."""
        self.connect_at: float | None = None
        """WAITING: when to dial again."""
        self.name = normal(options.name)
        """In the server's spelling."""
        self.logins = 0
        self.resumptions = 0
        """Handshakes shortened by a ticket."""
        self._change(State.CONNECTING)

    # --- connections -----------------------------------------------------------------------------
    def dialling(self) -> None:
        """The face is about to open a socket."""
        self.connect_at = None
        if self.state is not State.CONNECTING:
            self._change(State.CONNECTING)

    def connection_made(self, now: float) -> None:
        """A TCP connection is open; the server sends first."""
        if self.state is State.CLOSED:
            return
        # Once: of a server that is overloaded, all addresses are slow.
        timing = timing_of(hurried=self.logins == 0 and self.addresses.untried)
        random_bytes = self.options.random_bytes
        self._connection = Connection.client(now=now, random_bytes=random_bytes, timing=timing)
        self._deadlines.received(now)

    def connect_failed(self, error: ClientError, now: float) -> None:
        """No address could be reached. Final for the first attempt; later ones are retried."""
        self.last_problem = error
        if self.logins == 0 or not self.options.reconnect:
            self._finish(error)
        else:
            self._wait(error, now, 0.0)

    def receive_data(self, data: bytes, now: float) -> None:
        """Handle bytes from the server."""
        connection = self._connection
        if connection is None:
            return
        self._deadlines.received(now)
        connection.receive_data(data, now)
        self._handle_events(connection, now)

    def receive_eof(self, now: float) -> None:
        """Handle the end of the stream, or the loss of the connection."""
        if self._connection is not None:
            self._connection.receive_eof(now)
            self._handle_events(self._connection, now)

    def data_to_send(self, now: float) -> bytes:
        """Return the bytes to write now; must be called after every other call."""
        self.chat.rooms.flush_due = False
        connection = self._connection
        if connection is None:
            return b""
        parts = [connection.data_to_send()]
        if connection.phase is Phase.OPEN:
            online = self.state is State.ONLINE
            out = self.chat.outgoing(now) if online else self.login.outgoing()
            parts += [connection.seal(content, now) for content in pack_records(out)]
            self._deadlines.awaited(self.chat.awaited, now)
        self._ended(connection)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def connected(self) -> bool:
        """False if the face should close its socket, once everything is written."""
        return self._connection is not None

    @property
    def ending(self) -> bool:
        """True if the connection is closing, closed or gone: its last bytes cannot wait."""
        connection = self._connection
        return connection is None or connection.phase in (Phase.CLOSING, Phase.CLOSED)

    @property
    def reading_paused(self) -> bool:
        """True while the application takes events too slowly: do not read the socket."""
        return self.chat.paused and self.state is State.ONLINE and self._ending is None

    def seen(self) -> tuple[str, dict[str, Pin], list[bytes] | None] | None:
        """Return what was seen of device chains, for ``KeyChoice.keep``."""
        known = self.login.credentials
        if known is None or (found := self.chat.senders.take_seen()) is None:
            return None
        return known.server_id, *found

    @property
    def needs_credentials(self) -> str | None:
        """The id of the server, once it is known and the client's key for it is not.

        The face finds the key, which needs files, and sets ``login.credentials``.
        """
        return None if self.login.credentials is not None else self.key.id

    @property
    def work(self) -> Work | None:
        """The work that the server requests before the handshake continues, or None."""
        return None if self._connection is None else self._connection.work

    def work_done(self, work: Work, nonce: bytes, now: float) -> None:
        """The work is done. No effect if the connection has ended meanwhile."""
        connection = self._connection
        if connection is not None and connection.work is work:
            connection.provide_work(nonce, now)

    def fail(self, error: ClientError) -> None:
        """End permanently, without telling the server."""
        if self.state is not State.CLOSED:
            self._connection = None
            self._finish(error)

    def forked(self, error: ClientError) -> None:
        """This is a copy in a forked child: its content belongs to the parent."""
        self._connection = None
        self.login.offline()
        self._tickets.forget()
        self.fail(error)
        self.chat.queue.clear()

    def close(self, now: float) -> None:
        """End: with a close record if there is a connection."""
        if self.state is State.CLOSED:
            return
        connection = self._connection
        if connection is None:
            self._finish(None)
            return
        self._end_with(ClientClosed("the client was closed"))
        connection.close(CloseCode.NORMAL, now)
        self._handle_events(connection, now)

    # --- time ------------------------------------------------------------------------------------
    def next_deadline(self) -> float | None:
        """Return when ``handle_deadline`` is due; None: nothing is awaited."""
        connection = self._connection
        if connection is None:
            return None
        due = [self._deadlines.next_deadline(connection, reading=not self.reading_paused)]
        if self.state is State.ONLINE:
            due.append(self.chat.next_deadline())
        return min((at for at in due if at is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Do what is due."""
        connection = self._connection
        if connection is None:
            return
        if self.state is State.ONLINE:
            self.chat.handle_deadline(now)
        self._deadlines.handle(connection, now, reading=not self.reading_paused)
        self._handle_events(connection, now)

    # --- events of the connection ----------------------------------------------------------------
    def _handle_events(self, connection: Connection, now: float) -> None:
        for event in connection.events():
            match event:
                case ApplicationData(content=content):
                    self._receive_envelopes(connection, content, now)
                case ServerKeyOffered():
                    self._check_key(connection, event, now)
                case HandshakeCompleted(mode=mode):
                    self.resumptions += mode == RESUMED
                    self._handshaken(connection, now)
                case TicketReceived(ticket=ticket, lifetime_s=lifetime_s):
                    assert self.key.fingerprint is not None
                    self._tickets.keep(self.key.fingerprint, ticket, lifetime_s, now)
                case ConnectionClosed():
                    self._closed(event, now)
                case _:
                    pass
        if connection.finished and self._connection is connection:
            # An abort in this loop adds its event after those already taken.
            for event in connection.events():
                if isinstance(event, ConnectionClosed):
                    self._closed(event, now)

    def _check_key(self, connection: Connection, offered: ServerKeyOffered, now: float) -> None:
        """The decision about the key: before the client has sent one byte."""
        wrong = self.key.offered(offered)
        if wrong is not None:
            self._end_with(wrong)
            connection.abort("the server's key is another one")
        elif self.key.undecided is not None:
            connection.abort("the server's key is not known")
        elif (known := self.login.credentials) is not None and known.missing is not None:
            self._end_with(known.missing)
            connection.abort("there is no key to log in with")
        else:
            connection.accept_server_key(now, self._tickets.take(offered.fingerprint, now))

    def _handshaken(self, connection: Connection, now: float) -> None:
        if self.key.proved():
            self._log_in(connection, now)
            return
        self.login.credentials = None  # those for another id
        connection.close(CloseCode.NORMAL, now)

    def _log_in(self, connection: Connection, now: float) -> None:
        assert connection.login_binding is not None
        assert self.key.fingerprint is not None
        self.login.begin(connection.login_binding, self.key.fingerprint)
        self._deadlines.login_begins(now)

    def _closed(self, event: ConnectionClosed, now: float) -> None:
        """The connection has ended: start again, or end."""
        was_online = self.state is State.ONLINE
        handshaken = self._deadlines.logging_in or was_online
        self._offline()
        if self._ending is not None:
            self._finish(self._ending)
            return
        if self.key.asks:
            return  # the face asks, and dials again or fails
        if event.code == CloseCode.NAME_REFUSED and self.login.tries_again():
            return  # the face dials again
        # Without proof, only another key ends a client that has other addresses.
        others = not was_online and self.addresses.failed() and not handshaken
        refusal = self.login.error or self.chat.refusal
        error = self.last_problem = error_of_end(event, refusal, handshaken=handshaken)
        final = not may_reconnect(event.code) or not self.options.reconnect
        if (final or (self.logins == 0 and isinstance(error, HandshakeFailed))) and not others:
            self._finish(error)
        else:
            self._wait(error, now, event.retry_after_s)

    def _offline(self) -> None:
        # data_to_send still has to return the last bytes (a close record): see _ended.
        self._deadlines.reset()
        self.login.offline()
        self.chat.offline()

    def _ended(self, connection: Connection) -> None:
        if connection.finished and self._connection is connection:
            self._connection = None

    def _wait(self, error: ClientError, now: float, retry_after_s: float) -> None:
        delay = self._backoff.next_delay(now, retry_after_s)
        self.connect_at = now + delay
        self._change(State.WAITING, str(error), delay)

    def _end_with(self, error: ClientError) -> None:
        """This side ends the connection, permanently: from now on every call raises this."""
        self._ending = error
        self.chat.ending = error

    def _finish(self, error: ClientError | None) -> None:
        """CLOSED: nothing more arrives. Everything that waits for an answer gets this one."""
        closed_by_us = error is None or isinstance(error, ClientClosed)
        self.error = None if closed_by_us else error
        ended = error or ClientClosed("the client was closed")
        self.chat.end(ended)
        self.connect_at = None
        self.key.end()
        self._change(State.CLOSED, "" if closed_by_us else str(error))

    def _change(self, state: State, detail: str = "", retry_s: float = 0.0) -> None:
        log.debug("%s is %s%s", self.name, state.value, f": {detail}" if detail else "")
        self.state = state
        self.chat.queue.put(StateChanged(state, detail, retry_s))

    # --- envelopes -------------------------------------------------------------------------------
    def _receive_envelopes(self, connection: Connection, content: bytes, now: float) -> None:
        if self._ending is not None:
            return  # the first reason counts, whatever arrived with it
        try:
            envelopes = unpack_server(content)
            if self.state is not State.ONLINE:
                envelopes = self._receive_login(connection, envelopes, now)
            self.chat.receive(envelopes, now)
        except RemoteProtocolError as error:
            self._end_with(ServerBrokeProtocol(f"the server broke the protocol: {error}"))
            connection.violated(error, now)
            return
        if self.chat.next_key.proved is not None:
            self.key.announced(self.chat.next_key.proved)
            self.chat.next_key.proved = None
        if self.chat.rooms.broken:
            connection.abort(self.chat.rooms.broken)

    def _know_senders(self, welcome: Welcome) -> None:
        known = self.login.credentials
        assert known is not None
        kept = known.chain if welcome.root else None
        self.chat.senders.begin(
            server_id_bytes(known.server_id), welcome.name, welcome.root, known.pins, kept,
            self.login.begun_chain(welcome.root),
        )  # fmt: skip

    def _receive_login(
        self, connection: Connection, envelopes: list[ServerEnvelope], now: float
    ) -> list[ServerEnvelope]:
        """Look for the answer to HELLO; return what follows it."""
        for index, envelope in enumerate(envelopes):
            if self.login.receive(envelope):
                assert isinstance(envelope, Welcome)
                self._deadlines.logged_in()
                self._know_senders(envelope)
                self.logins += 1
                self.name = envelope.name
                self.addresses.succeeded()
                self._backoff.online(now)
                self.chat.next_key.begin(self.key.spki, self.key.following)
                self.chat.online(envelope, now)
                self._change(State.ONLINE)
                return envelopes[index + 1 :]
            if self.login.ends:
                assert self.login.error is not None
                self._end_with(self.login.error)
                connection.close(CloseCode.NORMAL, now)
                break
        return []
