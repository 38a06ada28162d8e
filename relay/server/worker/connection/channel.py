"""One connection's encrypted channel: a sans-I/O ``wire.Connection`` on its stream.

The handshake with the key agent's help, the deadlines of handshake, login and last bytes,
keepalive, tickets, proofs of keys that are bound to this channel. Records of operations pass it by:
``reading`` opens them, ``outbox`` seals them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from relay import limits
from relay.server.worker.connection.unwrapping import Unwrapping
from relay.wire.connection import Connection
from relay.wire.login import proves

if TYPE_CHECKING:
    from relay.server.worker.connection.reading import Owner
    from relay.server.worker.connection.services import ConnectionServices
    from relay.server.worker.delivery.stream import Stream
    from relay.wire.login import Operation

LINGER_S: Final = 2.0
"""How long the last bytes of a closed connection may take to leave."""
KEYS_UNITS: Final = 48
"""Of the schedule, for what an answer of the key agent leads to: about 0.3 ms."""
NO_KEY_AGENT: Final = "the key agent is unavailable"


@final
class Channel:
    """See the module's docstring."""

    __slots__ = (
        "_deadline", "_owner", "_secret", "_services", "_stream", "_unwrapping", "connection",
    )  # fmt: skip

    def __init__(
        self,
        services: ConnectionServices,
        stream: Stream,
        owner: Owner,
    ) -> None:
        """Begin, unconnected.

        Args:
            services: of the worker.
            stream: not connected yet.
            owner: takes what has happened to the connection without a frame.
        """
        self._services = services
        self._stream = stream
        self._owner: Owner | None = owner
        """None once the socket is closed."""
        self._unwrapping: Unwrapping | None = None
        self._secret: bytes | None = None
        """What the key agent has answered, while that waits for its turn."""
        self._deadline: float | None = None
        """When the login must be complete, or a closed connection's last bytes have left."""
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
        """True while the key agent is asked."""
        return self._unwrapping is not None

    @property
    def finished(self) -> bool:
        """True once nothing more can be sent."""
        return self.connection.finished

    # --- in and out -----------------------------------------------------------------------------
    def receive_eof(self, now: float) -> None:
        """Take the peer's end of stream."""
        self.connection.receive_eof(now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Have taken what has happened without a frame, and write what the connection owes."""
        if self._owner is not None:
            self._owner.handle_events(self.connection.events(), now)
        self.write_pending()

    def write_pending(self) -> None:
        """Write what the connection has for the peer; close when it has finished."""
        pending = self.connection.data_to_send()
        if pending:
            self._stream.write(pending)
        if self.connection.finished and not self._stream.closing:
            self._stream.close()
            self._deadline = self._services.clock() + LINGER_S

    # --- handshake and login ----------------------------------------------------------------------
    def unwrap(self, ciphertext: bytes) -> None:
        """Have the key agent decrypt what the client has sent, and go on with that."""
        self._unwrapping = Unwrapping()
        agent = self._services.agent
        self._unwrapping.start(agent, ciphertext, self._stream.peer, self._unwrapped)

    def _unwrapped(self, secret: bytes | None) -> None:
        """Go on now, or in turn: answers come many at a time, and each leads to some work.

        Without the key agent the handshake ends; the client comes again.
        """
        schedule = self._services.schedule
        if secret is None:
            self._unwrapping = None
            self.connection.abort(NO_KEY_AGENT)
            self.settle(self._services.clock())
        elif schedule.is_for_newcomers():
            self._go_on(secret, self._services.clock())
        else:
            self._secret = secret
            schedule.add(self, 0.0, 0)

    def take_turn(self, now: float) -> None:
        """schedule.Scheduled: go on with what the key agent has answered. Raises nothing."""
        secret, self._secret = self._secret, None
        if secret is None:
            return
        self._services.schedule.charge(0.0, KEYS_UNITS, drained=True)
        try:
            self._go_on(secret, now)
        except Exception as error:  # noqa: BLE001 - who else has a turn is not to blame
            if self._owner is not None:
                self._owner.failed(error)

    def _go_on(self, secret: bytes, now: float) -> None:
        self._unwrapping = None
        self.connection.provide_secret(secret, now)
        self.settle(now)
        if self._owner is not None:
            self._owner.on_keys(now)

    def await_login(self, now: float) -> None:
        """The handshake is over: the login has so long, and little to send."""
        self._deadline = now + self._services.login_s
        self.connection.limit_records(limits.LOGIN_RECORD_BODY_BYTES_MAX)

    def proves(self, operation: Operation, key: bytes, name: str, signature: bytes) -> bool:
        """Tell whether a signature proves a device key, on this connection, for this."""
        binding = self.connection.login_binding
        assert binding is not None
        return proves(operation, binding, self._services.spki_hash, key, name, signature)

    def logged_in(self) -> None:
        """The login is over. A ticket leaves with WELCOME, in one write."""
        self._deadline = None
        self.connection.login_binding = None  # nothing is proved any more
        self.connection.limit_records(limits.RECORD_BODY_BYTES_MAX)
        tickets = self._services.tickets
        if tickets is not None:
            self.connection.give_ticket(tickets, self._services.clock())

    # --- deadlines --------------------------------------------------------------------------------
    def overdue(self, now: float) -> bool:
        """Tell whether the login, or the last bytes, have taken too long."""
        return self._deadline is not None and now >= self._deadline

    def check_peer(self, now: float) -> None:
        """Ping a peer that is silent, and end when it stays silent."""
        deadline = self.connection.next_deadline()
        if deadline is not None and now >= deadline:
            self.connection.handle_deadline(now)
            self.settle(now)

    # --- the end ------------------------------------------------------------------------------
    def ending(self) -> None:
        """The connection ends: only its last bytes have a deadline from now on."""
        self._deadline = None
        if self._owner is not None:
            self._owner.watch()

    def end(self) -> None:
        """The socket is closed: nobody is told of anything. It leaves no circle of objects."""
        if self._unwrapping is not None:
            self._unwrapping.cancel()
            self._unwrapping = None
        self._secret = None
        self._owner = None
