"""Processes what one connection has received, in its turn and only while nothing pauses it.

Received bytes are kept as bytes. One record at a time is opened and unpacked, and its operations
run, up to this connection's share of a turn (``schedule``). A record of many operations is unpacked
in parts, and all of it must be valid before any of them runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay.codec import Unpacking
from relay.server.worker.connection.budgets.waste import CONTROL_UNITS
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.schedule import (
    BULK,
    LIGHT_MAX,
    LIGHT_PER_S,
    OWED_S_MAX,
    RECORD_UNITS,
    SAVED_S,
    UNITS,
    UNITS_PER_TURN,
    VALUES_PER_UNIT,
)
from relay.wire.envelopes import Send
from relay.wire.events import PongReceived
from relay.wire.packing import CLIENT_SCHEMA
from relay.wire.phases import Phase

if TYPE_CHECKING:
    from relay.server.worker.connection.budgets.source_usage import Source
    from relay.server.worker.connection.budgets.waste import Waste, WasteState
    from relay.server.worker.connection.owner import Owner, SendsOfRecords
    from relay.server.worker.connection.received import ReceivedBytes
    from relay.server.worker.connection.schedule import Schedule
    from relay.server.worker.delivery.stream import Stream
    from relay.wire.connection import Connection
    from relay.wire.envelopes import ClientEnvelope

ENVELOPE_BYTES: Final = 256
"""Approximate memory of an unpacked envelope, besides the bytes it came from."""
_NONE: Final[list[ClientEnvelope]] = []
"""No operations. Shared; never modified."""


class Reading:
    """Reads one connection. A ``schedule.Scheduled`` and a ``received.Unprocessed``."""

    __slots__ = (
        "_busy", "_clock", "_connection", "_finish", "_frames", "_new", "_owed", "_owner",
        "_paid_s", "_paused", "_pending", "_received", "_record_bytes", "_running", "_schedule",
        "_stream", "_unpacking", "_waste", "pauses", "sends", "source", "unprocessed", "wasted",
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
        """Create without received bytes.

        Args:
            owner: runs the operations.
            connection: decodes the bytes.
            stream: delivers the bytes.
            schedule: of the worker.
            received: of the worker.
            waste: of the worker.
            source: of the peer.
            clock: monotonic seconds.
        """
        self._received = received
        self.unprocessed = 0
        """See ``ReceivedBytes``."""
        self._owner: Owner | None = owner
        """None once the socket is closed."""
        self._connection = connection
        self._frames = connection.reader
        self.sends: SendsOfRecords | None = None
        """Of the same connection; None until it is set, and once the socket is closed."""
        self._stream = stream
        self._schedule = schedule
        self._waste = waste
        self.source = source
        self.wasted: WasteState | None = None
        """See ``waste.ThrottledReader``."""
        self._clock = clock
        self.pauses: int = Pause.NONE
        self._busy = False
        """True while this connection is counted in ``Schedule.busy``."""
        self._paused = False
        """True while the socket is not read."""
        self._pending: list[ClientEnvelope] = _NONE
        """Remaining operations of one record, reversed. Later records stay as smaller bytes."""
        self._unpacking: Unpacking | None = None
        """The record being unpacked, if it has several operations and is not complete."""
        self._record_bytes = 0
        """Size of the record that ``_pending`` or ``_unpacking`` belongs to."""
        self._running = False
        """True while ``work`` runs."""
        self._finish = 0.0
        """See ``Schedule.charge``."""
        self._paid_s = clock()
        """Time up to which the allowance (``LIGHT_PER_S``) covers what ``work`` has used."""
        self._owed = 0
        """Units charged for requests after the fact, since then: see ``owe``."""
        self._new = False
        """True from the login until what came with it is processed, mostly in the same turn."""

    def received(self, data: bytes) -> None:
        """stream.Reader: process bytes from the peer now if there is time, otherwise in turn."""
        self._connection.feed(data)
        if self.pauses:
            self._pause_socket()
            self._report_unprocessed()
            return  # they are processed when the pause ends
        owner, now = self._owner, self._clock()
        before_login = owner is not None and owner.before_login
        if self._schedule.has_time(now, first=self._new, before_login=before_login):
            self.work(now)
        else:
            self._wait_for_turn()
            self._report_unprocessed()

    def unpack(self, content: bytes) -> None:
        """Take the operations of a record. Raises RemoteProtocolError if it is not valid."""
        self._record_bytes = len(content)
        messages, rest = CLIENT_SCHEMA.unpack_first(content)
        if rest:
            self._unpacking = Unpacking(CLIENT_SCHEMA, messages, rest)
        else:
            self._pending = messages[::-1]

    def _unpack_more(self, unpacking: Unpacking) -> int:
        """Unpack some more operations; return the cost in units."""
        values = unpacking.advance()
        if unpacking.done:
            self._unpacking = None
            self._pending = unpacking.messages[::-1]
        return 1 + values // VALUES_PER_UNIT

    def work(self, now: float) -> None:
        """Process received bytes, up to this connection's share. Raises nothing."""
        owner = self._owner
        if self._running or owner is None:
            return
        self._running, self._new = True, False
        schedule, connection, frames = self._schedule, self._connection, self._frames
        paid_s = self._paid_s
        share, saved = UNITS_PER_TURN, 0
        if schedule.queue.waiting:
            share = schedule.share
            if share < UNITS_PER_TURN and not self._finish:
                saved = max(0, min(_left(paid_s, now), UNITS_PER_TURN - share))
                share += saved
        units = share
        control, drained = owner.ended, False
        sending: SendsOfRecords | None = None
        light, bulk, yields = schedule.serves_light, False, False
        try:
            while units > 0 and not self.pauses:
                if (saved or light) and self._is_bulk:
                    bulk = True
                    share, units, saved = share - saved, units - saved, 0
                    if light or units <= 0:
                        yields = True  # it continues with the heavy users
                        break
                pending = self._pending
                if pending:
                    envelope = pending[-1]
                    if type(envelope) is Send and not owner.before_login:
                        sending = self.sends
                        taken = 0 if sending is None else sending.take(pending, units)
                        if taken:
                            units -= taken
                            continue
                    elif sending is not None:
                        sending.offer()  # operations keep their order
                        sending = None
                    pending.pop()
                    units -= UNITS.get(type(envelope), 1)
                    owner.run(envelope)
                elif self._unpacking is not None:
                    units -= self._unpack_more(self._unpacking)
                else:
                    content = connection.receive_next(now) if frames.pending else None
                    if content is None:
                        drained = True
                        break
                    if content and not owner.ended:
                        self.unpack(content)
                    elif not content:
                        control = True
                        events = connection.events()
                        owner.handle_events(events, now)
                        needless = not events or type(events[0]) is PongReceived
                        if needless and connection.phase is Phase.OPEN and not owner.ended:
                            self.waste(CONTROL_UNITS)  # not a ticket, which has no event, either
                    units -= RECORD_UNITS
        except Exception as error:  # noqa: BLE001 - nothing that a peer sends leaves this class
            owner.failed(error)
        finally:
            if sending is not None:
                sending.offer()
            self._running = False
        if not self._pending:
            self._pending = _NONE  # an empty list per connection would add up to a page each
        self._charge(owner, share - units, paid_s, now, bulk=bulk, drained=drained)
        if (units <= 0 or yields) and not self.pauses & Pause.TURN:
            self._wait_for_turn()
        if control and (connection.out or connection.phase is Phase.CLOSED):
            owner.write_pending()
        if frames.pending or self._pending or self._unpacking is not None or self.unprocessed:
            self._report_unprocessed()

    # --- what it uses -------------------------------------------------------------------------
    def _charge(
        self, owner: Owner, used: int, paid_s: float, now: float, *, bulk: bool, drained: bool
    ) -> None:
        """Charge what ``work`` has used to the allowance, and in the queue.

        ``used`` is in units; 0: it only checked for input. ``bulk``: a bulk load was among it.
        ``drained``: there was no more input. All others are as they were when ``work`` began.
        """
        if used:
            left = 0
            if (not drained or used + self._owed > LIGHT_MAX) and not bulk and not self._is_bulk:
                left = _left(paid_s, now)
            drained = drained or (not self._finish and used < left)  # light still: it was late
            if self._owed:
                used, self._owed = used + self._owed, 0
            owed_s = max(self._paid_s, now - SAVED_S) + used / LIGHT_PER_S
            self._paid_s = min(owed_s, now + OWED_S_MAX)
            if LIGHT_MAX < used <= left + LIGHT_MAX and not owner.before_login:
                used = LIGHT_MAX
        self._finish = self._schedule.queue.charge(self, self._finish, used, drained=drained)

    def logged_in(self) -> None:
        """Expect little of the next request: the login is no indication."""
        self._paid_s, self._new = self._clock(), True

    @property
    def is_heavy(self) -> bool:
        """True if this connection is a heavy user, by its recent use and by what is waiting."""
        more = self._unpacking is not None or (self._finish > 0.0 and self._frames.pending > 0)
        return more or self._expected() + len(self._pending) > LIGHT_MAX

    @property
    def _is_bulk(self) -> bool:
        """True if one record has brought more than an allowance is meant for."""
        unpacking = self._unpacking
        return len(self._pending if unpacking is None else unpacking.messages) > BULK

    def owe(self, units: int) -> None:
        """Charge the actual cost of a request afterwards, which delays later requests."""
        self._owed += units

    def _expected(self) -> int:
        """Return the expected use: what the allowance does not cover, and a bulk load."""
        if self._is_bulk:
            return UNITS_PER_TURN
        return max(self._owed - _left(self._paid_s, self._clock()), 1)

    # --- reading or not -----------------------------------------------------------------------
    def _set_pauses(self, pauses: int) -> None:
        self.pauses = pauses
        owner = self._owner
        if owner is None or owner.before_login:
            return
        busy = pauses & Pause.BUSY != 0 or (pauses & Pause.REQUEST != 0 and self.is_heavy)
        if busy is not self._busy:
            self._busy = busy
            self._schedule.busy += 1 if busy else -1

    def pause(self, reason: int) -> None:
        """Stop processing, for one more reason (``Pause``).

        The socket is not read either, except under REQUEST: an answer usually comes within
        microseconds, and the client waits for it. If bytes arrive meanwhile, reading stops.
        """
        self._set_pauses(self.pauses | reason)
        if reason != Pause.REQUEST:
            self._pause_socket()

    def resume(self, reason: int) -> None:
        """Remove a reason. If it was the last one, continue, now or in turn."""
        if not self.pauses & reason:
            return
        self._set_pauses(self.pauses & ~reason)
        now = self._clock()
        if reason & Pause.MUCH:  # nothing was saved while it waited for that
            self._paid_s = max(self._paid_s, now + OWED_S_MAX)
        if not self.pauses:
            before_login = self._owner is not None and self._owner.before_login
            if self._schedule.has_time(now, first=self._new, before_login=before_login):
                self._resume(now)
            else:
                self._wait_for_turn()

    def take_turn(self, now: float) -> None:
        """schedule.Scheduled: continue with the received bytes."""
        self._set_pauses(self.pauses & ~Pause.TURN)
        if not self.pauses:
            self._resume(now)

    def _resume(self, now: float) -> None:
        more = self._running or self._unpacking is not None or self._pending
        if more or self._frames.pending:
            self.work(now)
        else:  # the usual case: the client has waited, too. As ``work`` would leave it:
            self._new, self._finish = False, 0.0
        if self._paused and not self.pauses:
            self._paused = False
            self._stream.resume_reading()

    def _pause_socket(self) -> None:
        if not self._paused:
            self._paused = True
            self._stream.pause_reading()

    def _wait_for_turn(self) -> None:
        """Stop reading until this connection's turn."""
        owner = self._owner
        if owner is not None and owner.before_login:  # its client waits: stop only if bytes arrive
            self._set_pauses(self.pauses | Pause.TURN)
            self._schedule.add(self, self._finish, 0)
        else:
            self.pause(Pause.TURN)
            self._schedule.add(self, self._finish, self._expected())

    # --- useless requests -----------------------------------------------------------------------
    def waste(self, units: float) -> None:
        """Charge for a useless request. The connection may be throttled."""
        if units and (owner := self._owner) is not None:
            self._waste.charge(self, units)
            owner.watch()

    def begin_throttle(self) -> None:
        """waste.ThrottledReader: stop reading."""
        self.pause(Pause.WASTE)

    def end_throttle(self) -> None:
        """waste.ThrottledReader: continue, now or in turn."""
        self.resume(Pause.WASTE)

    # --- the end ------------------------------------------------------------------------------
    def drop_operations(self) -> None:
        """Discard all waiting operations."""
        self._pending = _NONE
        self._unpacking = None

    def read_to_the_end(self) -> None:
        """End all pauses: the peer's close must be read.

        A protocol violation must not end the connection with unread bytes either: the kernel's
        reset would overtake our close record.
        """
        if self.pauses & ~Pause.TURN:
            queued = self.pauses & Pause.TURN
            self._set_pauses(Pause.TURN)
            if not queued:
                self._schedule.add(self, self._finish, self._expected())

    def end(self) -> None:
        """Discard everything received, after the socket is closed."""
        self._set_pauses(self.pauses & ~(Pause.BUSY | Pause.REQUEST))
        self._owner = self.sends = None
        self._waste.forget(self)
        self._received.change(self, 0)

    def shed(self) -> None:
        """received.Unprocessed: close, because this connection holds the most."""
        if self._owner is not None:
            self._owner.shed()

    def _report_unprocessed(self) -> None:
        """Report how many received bytes and operations this connection holds."""
        if self._owner is None:
            return
        unprocessed = self._frames.pending
        if self._pending:
            unprocessed += self._record_bytes + len(self._pending) * ENVELOPE_BYTES
        elif self._unpacking is not None:
            unprocessed += self._record_bytes + len(self._unpacking.messages) * ENVELOPE_BYTES
        if unprocessed != self.unprocessed:
            self._received.change(self, unprocessed)


def _left(paid_s: float, now: float) -> int:
    """Return the unused allowance, in units; negative if more was used. See ``Reading._paid_s``."""
    return int((now - max(paid_s, now - SAVED_S)) * LIGHT_PER_S)
