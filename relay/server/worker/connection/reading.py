"""Reading one connection: what was received is processed in turn, and not while anything is held.

Bytes wait as bytes. One record at a time is opened and unpacked, and its operations are run, up to
this connection's share of a turn (``schedule``). A record of many operations is unpacked a part at
a time as well, and nothing of it is run before all of it is known to be legal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.schedule import (
    LITTLE,
    LITTLE_PER_S,
    OWED_S_MAX,
    RECORD_UNITS,
    SAVED_S,
    UNITS,
    UNITS_PER_TURN,
    VALUES_PER_UNIT,
)
from relay.server.worker.connection.waste import CONTROL_UNITS
from relay.wire.envelopes import Send
from relay.wire.events import ApplicationData, PongReceived
from relay.wire.packing import unpack_lone, unpacking

if TYPE_CHECKING:
    from relay.codec import Unpacking
    from relay.server.worker.connection.received import ReceivedBytes
    from relay.server.worker.connection.schedule import Schedule
    from relay.server.worker.connection.source_usage import Source
    from relay.server.worker.connection.waste import Waste, Wasted
    from relay.server.worker.delivery.stream import Stream
    from relay.wire.connection import Connection
    from relay.wire.envelopes import ClientEnvelope
    from relay.wire.events import Event

ENVELOPE_BYTES: Final = 256
"""About what an unpacked envelope takes besides the bytes that it came from."""
_NONE: Final[list[ClientEnvelope]] = []
"""No operations. Shared, and never added to."""


class Owner:
    """Whose connection it is: a session. A base class, no Protocol: compiled, a call is direct."""

    __slots__ = ("_on_watch", "ended", "newcomer")

    def __init__(self, on_watch: Callable[[Any], None]) -> None:
        self._on_watch = on_watch
        self.ended = False
        """True once the connection is closing: no operation has an effect any more."""
        self.newcomer = True
        """Not logged in yet."""

    def handle_events(self, events: list[Event], now: float) -> None:
        """Take what has happened. May raise."""
        raise NotImplementedError

    def run(self, envelope: ClientEnvelope) -> None:
        """Do what an envelope asks for. May raise."""
        raise NotImplementedError

    def offer_sends(self) -> None:
        """What else is run, if anything, comes after the sends that were taken so far."""
        raise NotImplementedError

    def failed(self, error: Exception) -> None:
        """Either of them has raised."""
        raise NotImplementedError

    def write_pending(self) -> None:
        """Write what the connection has for the peer."""
        raise NotImplementedError

    def on_keys(self, now: float) -> None:
        """There are keys: what was received meanwhile can be read."""
        raise NotImplementedError

    def answer_send(self, envelope: bytes) -> None:
        """Queue an answer to a send, unless the connection has ended."""
        raise NotImplementedError

    def watch(self) -> None:
        """Look at this connection each second for now: it rests, or has wasted something."""
        self._on_watch(self)

    def shed(self) -> None:
        """End: of what was received and not processed, this connection holds most."""
        raise NotImplementedError


class Reading:
    """See the module's docstring. A ``schedule.Scheduled``, and a ``received.Holder``."""

    __slots__ = (
        "_busy", "_clock", "_connection", "_finish", "_owed", "_owner", "_paused", "_pending",
        "_paid_s", "_received", "_record_bytes", "_running", "_schedule", "_stream", "_unpacking",
        "_waste", "held", "pauses", "source", "wasted",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        connection: Connection,
        stream: Stream,
        *,
        schedule: Schedule,
        received: ReceivedBytes,
        waste: Waste,
        source: Source,
        clock: Callable[[], float],
    ) -> None:
        """Begin with nothing.

        Args:
            owner: does what was asked for.
            connection: takes the bytes apart.
            stream: where they come from.
            schedule: of the worker.
            received: likewise.
            waste: likewise.
            source: of the peer.
            clock: monotonic seconds.
        """
        self._received = received
        self.held = 0
        """See ``ReceivedBytes``."""
        self._owner: Owner | None = owner
        """None once the socket is closed."""
        self._connection = connection
        self._stream = stream
        self._schedule = schedule
        self._waste = waste
        self.source = source
        self.wasted: Wasted | None = None
        """See ``waste.Waster``."""
        self._clock = clock
        self.pauses: int = Pause.NONE
        self._busy = False
        """One of those that ``Schedule.busy`` counts."""
        self._paused = False
        """True while the socket is not read."""
        self._pending: list[ClientEnvelope] = _NONE
        """What is left of the operations of one record, the next one last. Records behind it stay
        bytes: operations take many times the room."""
        self._unpacking: Unpacking | None = None
        """Of the next record, if it has several operations and some are not unpacked yet."""
        self._record_bytes = 0
        """Of either of them."""
        self._running = False
        """True while ``work`` runs."""
        self._finish = 0.0
        """See ``Schedule.charge``."""
        self._paid_s = clock()
        """Up to when what ``work`` has used is allowed for: see ``LITTLE_PER_S``."""
        self._owed = 0
        """Units that its requests have turned out to cost since: see ``owe``."""

    def received(self, data: bytes) -> None:
        """Take bytes from the peer; process them now if there is time, or else in turn."""
        self._connection.feed(data)
        if self.pauses:
            self._pause_socket()
            self._note_held()
            return  # whatever it waits for goes on with this
        now = self._clock()
        if self._has_time(now):
            self.work(now)
        else:
            self._wait_for_turn()
            self._note_held()

    def unpack(self, content: bytes) -> None:
        """Take the operations of a record. Raises RemoteProtocolError: it has none."""
        self._record_bytes = len(content)
        lone = unpack_lone(content)
        if lone is not None:
            self._pending = lone
        else:
            self._unpacking = unpacking(content)

    def _unpack_more(self, unpacking: Unpacking) -> int:
        """Take some more of them; return what that has cost, in units."""
        values = unpacking.go_on()
        if unpacking.done:
            self._unpacking = None
            self._pending = unpacking.messages
            self._pending.reverse()
        return 1 + values // VALUES_PER_UNIT

    def work(self, now: float) -> None:
        """Process what was received, up to this connection's share. Raises nothing."""
        owner = self._owner
        if self._running or owner is None:
            return
        self._running = True
        share = self._schedule.share
        left = self._left(now)
        if not self._finish and left > 0 and share < UNITS_PER_TURN:
            share = min(share + left, UNITS_PER_TURN)
        units = share
        connection = self._connection
        control, drained, sending = owner.ended, False, False
        try:
            while units > 0 and not self.pauses:
                if self._pending:
                    envelope = self._pending.pop()
                    units -= UNITS.get(type(envelope), 1)
                    if type(envelope) is Send:
                        sending = True
                    elif sending:
                        owner.offer_sends()  # the order of operations is kept
                        sending = False
                    owner.run(envelope)
                elif self._unpacking is not None:
                    units -= self._unpack_more(self._unpacking)
                elif connection.receive_next(now):
                    events = connection.events()
                    if len(events) == 1 and type(events[0]) is ApplicationData:
                        # Nearly every record: nothing has to be written for it.
                        if not owner.ended:
                            self.unpack(events[0].content)
                    else:
                        control = True
                        owner.handle_events(events, now)
                        if not owner.ended and (not events or type(events[0]) is PongReceived):
                            self.waste(CONTROL_UNITS)
                    units -= RECORD_UNITS
                else:
                    drained = True
                    break
        except Exception as error:  # noqa: BLE001 - nothing that a peer sends leaves this class
            owner.failed(error)
        finally:
            if sending:
                owner.offer_sends()
            self._running = False
        if not self._pending:
            self._pending = _NONE  # the empty list of each connection would be a page in all
        used = share - units
        if used:  # or else it only looked whether there is anything
            used, self._owed = used + self._owed, 0
            paid_s = max(self._paid_s, now - SAVED_S) + used / LITTLE_PER_S
            self._paid_s = min(paid_s, now + OWED_S_MAX)
            if owner.newcomer:  # never counts as little
                used = max(used, LITTLE + 1)
            elif used <= left + LITTLE:
                used = min(used, LITTLE)
        self._finish = self._schedule.charge(self._finish, used, drained=drained)
        if units <= 0 and not self.pauses & Pause.TURN:
            self._wait_for_turn()
        if control:
            owner.write_pending()
        self._note_held()

    def logged_in(self) -> None:
        """What comes next is expected to be little: a login tells nothing about it."""
        self._paid_s = self._clock()

    @property
    def asks_much(self) -> bool:
        """True if it is one of the crowd, by what it has had of late, and by what waits."""
        more = self._unpacking is not None or (self._finish > 0.0 and self._connection.pending > 0)
        return more or self._expected() + len(self._pending) > LITTLE

    def owe(self, units: int) -> None:
        """Charge what a request has turned out to cost: what is asked next is served by that."""
        self._owed += units

    def _expected(self) -> int:
        """Return what it is likely to use: what it has had, less what was allowed since."""
        return max(self._owed - self._left(self._clock()), 1)

    def _left(self, now: float) -> int:
        """Return how much of what it was allowed it has not used; below 0: it has used more."""
        return int((now - max(self._paid_s, now - SAVED_S)) * LITTLE_PER_S)

    # --- reading or not -----------------------------------------------------------------------
    def _set_pauses(self, pauses: int) -> None:
        self.pauses = pauses
        owner = self._owner
        if owner is None:
            return
        busy = pauses & Pause.BUSY != 0 or (pauses & Pause.REQUEST != 0 and self.asks_much)
        busy = busy and not owner.newcomer
        if busy is not self._busy:
            self._busy = busy
            self._schedule.busy += 1 if busy else -1

    def pause(self, reason: int) -> None:
        """Process nothing more, for one more reason (``Pause``).

        Nor is the socket read, but for a request: its answer comes within microseconds as a rule,
        and the client waits for it. What comes meanwhile all the same ends the reading.
        """
        self._set_pauses(self.pauses | reason)
        if reason != Pause.REQUEST:
            self._pause_socket()

    def resume(self, reason: int) -> None:
        """That reason is gone: if it was the last one, go on, now or in turn."""
        if not self.pauses & reason:
            return
        self._set_pauses(self.pauses & ~reason)
        if not self.pauses:
            now = self._clock()
            if self._has_time(now):
                self._resume(now)
            else:
                self._wait_for_turn()

    def take_turn(self, now: float) -> None:
        """schedule.Scheduled: go on with what was received."""
        self._set_pauses(self.pauses & ~Pause.TURN)
        if not self.pauses:
            self._resume(now)

    def _resume(self, now: float) -> None:
        self.work(now)
        if self._paused and not self.pauses:
            self._paused = False
            self._stream.resume_reading()

    def _pause_socket(self) -> None:
        if not self._paused:
            self._paused = True
            self._stream.pause_reading()

    def _has_time(self, now: float) -> bool:
        owner, schedule = self._owner, self._schedule
        if owner is not None and owner.newcomer and not schedule.is_for_newcomers():
            return False
        return schedule.has_time(now)

    def _wait_for_turn(self) -> None:
        """Read nothing more until this connection's turn has come."""
        self.pause(Pause.TURN)
        owner = self._owner
        units = 0 if owner is not None and owner.newcomer else self._expected()
        self._schedule.add(self, self._finish, units)

    # --- what brings nothing ------------------------------------------------------------------
    def waste(self, units: float) -> None:
        """Charge for something that brought nothing. It may have to rest."""
        if units and (owner := self._owner) is not None:
            self._waste.charge(self, units)
            owner.watch()

    def begin_rest(self) -> None:
        """waste.Waster: read nothing more."""
        self.pause(Pause.WASTE)

    def end_rest(self) -> None:
        """waste.Waster: go on, now or in turn."""
        self.resume(Pause.WASTE)

    # --- the end ------------------------------------------------------------------------------
    def drop_operations(self) -> None:
        """No operation has an effect any more."""
        self._pending = _NONE
        self._unpacking = None

    def read_to_the_end(self) -> None:
        """Whatever kept this connection from being read is over: the peer's close must be read.

        Nor may a violation end it with bytes unread: the kernel's reset would overtake our close.
        """
        if self.pauses & ~Pause.TURN:
            queued = self.pauses & Pause.TURN
            self._set_pauses(Pause.TURN)
            if not queued:
                self._schedule.add(self, self._finish, self._expected())

    def end(self) -> None:
        """The socket is closed: nothing that was received counts any more."""
        self._set_pauses(self.pauses & ~(Pause.BUSY | Pause.REQUEST))
        self._owner = None
        self._waste.forget(self)
        self._received.change(self, 0)

    def shed(self) -> None:
        """received.Holder: end, for it holds most."""
        if self._owner is not None:
            self._owner.shed()

    def _note_held(self) -> None:
        """Count what this connection makes the worker hold of what it has sent."""
        if self._owner is None:
            return
        held = self._connection.pending
        if self._pending:
            held += self._record_bytes + len(self._pending) * ENVELOPE_BYTES
        elif self._unpacking is not None:
            held += self._record_bytes + len(self._unpacking.messages) * ENVELOPE_BYTES
        if held != self.held:
            self._received.change(self, held)
