"""The encrypted channel of one connection: a sans-I/O ``wire.Connection`` on its stream.

It covers the handshake with the key agent's help, the deadlines for handshake, login and last
bytes, keepalive, tickets, and proofs of device keys, which are bound to this channel. It does not
handle records of operations: ``reading`` opens them and ``outbox`` seals them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

from relay import limits
from relay.wire.connection import Connection
from relay.wire.login import proves

if TYPE_CHECKING:
    from relay.server.agent.answer import Answer
    from relay.server.worker.connection.owner import Owner
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.delivery.stream import Stream
    from relay.wire.login import Operation

LINGER_S: Final = 2.0
"""How long the last bytes of a closed connection may take to be sent."""
KEYS_UNITS: Final = 48
"""Cost of continuing a handshake after the key agent's answer, in units of ``schedule``: about 0.3
ms."""
NO_KEY_AGENT: Final = "the key agent is unavailable"
log = logging.getLogger("relay.worker")


@final
class Channel:
    """One connection's encrypted channel."""

    __slots__ = (
        "_answer", "_deadline", "_owner", "_secret", "_services", "_stream", "connection",
    )  # fmt: skip

    def __init__(
        self,
        services: ConnectionServices,
        stream: Stream,
        owner: Owner,
    ) -> None:
        """Create a channel without a connection.

        Args:
            services: the worker's.
            stream: not connected yet.
            owner: handles events of the connection that do not come from a frame.
        """
        self._services = services
        self._stream = stream
        self._owner: Owner | None = owner
        """None once the socket is closed."""
        self._answer: Answer | None = None
        """Of the key agent, from the question until the handshake continues."""
        self._secret: bytes | None = None
        """What the key agent has answered, while it waits for a turn."""
        self._deadline: float | None = None
        """When the login must be complete, or when the last bytes of a closed connection must be
        sent."""
        self.connection = Connection.server(
            now=services.clock(),
            random_bytes=services.random_bytes,
            spki=services.spki,
            modulus_bytes=services.modulus_bytes,
            timing=services.timing,
            tickets=services.tickets,
            ext=services.hello_ext,
        )

    @property
    def unwrapping(self) -> bool:
        """True while the key agent is being asked."""
        return self._answer is not None

    @property
    def finished(self) -> bool:
        """True once nothing more can be sent."""
        return self.connection.finished

    # --- in and out -----------------------------------------------------------------------------
    def receive_eof(self, now: float) -> None:
        """Handle the peer's end of stream."""
        self.connection.receive_eof(now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Deliver events that did not come from a frame, and write pending bytes."""
        events = self.connection.events()
        if events and self._owner is not None:
            self._owner.handle_events(events, now)
        self.write_pending()

    def write_pending(self) -> None:
        """Write pending bytes, and close the stream if the connection is finished."""
        pending = self.connection.data_to_send()
        if pending:
            self._stream.write(pending)
        if self.connection.finished and not self._stream.closing:
            self._stream.close()
            self._deadline = self._services.clock() + LINGER_S

    # --- handshake and login ----------------------------------------------------------------------
    def unwrap(self, ciphertext: bytes) -> None:
        """Ask the key agent to decrypt the client's ciphertext, then continue the handshake."""
        self._answer = self._services.agent.unwrap(ciphertext, self._stream.peer)
        self._answer.then(self._unwrapped)

    def _unwrapped(self, answer: Answer) -> None:
        """Continue at once or in a later turn: answers arrive in groups, and each causes work."""
        schedule = self._services.schedule
        if answer.error is not None:
            log.warning("unwrap_failed", extra={"reason": type(answer.error).__name__})
            self._continue(None, self._services.clock())
        elif schedule.has_time_for_logins():
            self._continue(answer.secret, self._services.clock())
        else:
            self._secret = answer.secret
            schedule.add(self, 0.0, 0)

    def take_turn(self, now: float) -> None:
        """schedule.Scheduled: continue with the key agent's answer. Raises nothing."""
        secret, self._secret = self._secret, None
        if secret is None:
            return
        self._services.schedule.queue.charge(self, 0.0, KEYS_UNITS, drained=True)
        self._continue(secret, now)

    def _continue(self, secret: bytes | None, now: float) -> None:
        """Continue the handshake; None: the key agent is unavailable. Raises nothing.

        Without it the handshake ends, and the client reconnects.
        """
        self._answer = None
        try:
            if secret is None:
                self.connection.abort(NO_KEY_AGENT)
            else:
                self.connection.provide_secret(secret, now)
            self.settle(now)
            if self._owner is not None:
                self._owner.on_keys(now)
        except Exception as error:  # noqa: BLE001 - who else has a turn or an answer is not to blame
            if self._owner is not None:
                self._owner.failed(error)

    def await_login(self, now: float) -> None:
        """Start the login phase after the handshake: limit its time and what it may receive."""
        self._deadline = now + self._services.login_s
        self.connection.limit_records(limits.LOGIN_RECORD_BODY_BYTES_MAX)

    def proves(self, operation: Operation, key: bytes, name: str, signature: bytes) -> bool:
        """Check a signature that proves a device key for this operation on this connection."""
        binding = self.connection.login_binding
        assert binding is not None
        return proves(operation, binding, self._services.spki_hash, key, name, signature)

    def logged_in(self) -> None:
        """Finish the login. A ticket is sent in the same write as WELCOME."""
        self._deadline = None
        self.connection.login_binding = None  # nothing is proved after the login
        self.connection.limit_records(limits.RECORD_BODY_BYTES_MAX)
        tickets = self._services.tickets
        if tickets is not None:
            self.connection.give_ticket(tickets, self._services.clock())

    # --- deadlines --------------------------------------------------------------------------------
    def overdue(self, now: float) -> bool:
        """Return True if the login, or sending the last bytes, has taken too long."""
        return self._deadline is not None and now >= self._deadline

    def check_peer(self, now: float) -> None:
        """Ping a silent peer, and close the connection if it stays silent."""
        deadline = self.connection.next_deadline()
        if deadline is not None and now >= deadline:
            self.connection.handle_deadline(now)
            self.settle(now)

    # --- the end ------------------------------------------------------------------------------
    def ending(self) -> None:
        """Note that the connection is ending: from now on only its last bytes have a deadline."""
        self._deadline = None
        if self._owner is not None:
            self._owner.watch()

    def end(self) -> None:
        """Release everything after the socket is closed, without callbacks or reference cycles."""
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None
        self._secret = None
        self._owner = None
