"""Sends: the window of unacknowledged ones, one queue per room (docs/protocol.md, "Sending").

Each transmission of a send gets one answer on the same connection. The server accepts counters of
one room only in order, so the queue works like go-back-N: when a send is refused *temporarily*
(EXPECTED, BUSY, UNAVAILABLE), nothing new of that room is sent until every transmission under way
is answered; then everything that is left is sent again, in order. Logs do not delay each other.

Counters. A send keeps its counter as long as it may be stored under it. A send that is refused
*permanently* has not used its counter, so later sends, which cannot have been stored either, move
up by one. When the server has forgotten this producer (UNKNOWN_OUTCOME), numbering begins again at
1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from relay import limits
from relay.chat.names import INBOX_PREFIX
from relay.client.errors import ClientError
from relay.client.events import Stored
from relay.client.pending_sends import (
    ENVELOPE_OVERHEAD_BYTES,
    RETRY_S_MIN,
    Offer,
    Outcome,
    PendingSend,
    RoomSends,
    durability_name,
)
from relay.client.refusals import Refused, refused
from relay.wire.codes import ErrorCode, Survives
from relay.wire.envelopes import Ack
from relay.wire.envelopes import Refused as RefusedEnvelope
from relay.wire.packing import pack_send

_LATER: Final = frozenset({ErrorCode.EXPECTED, ErrorCode.BUSY, ErrorCode.UNAVAILABLE})


class Sends:
    """All unacknowledged sends of a client."""

    def __init__(
        self,
        counters: Mapping[str, int],
        *,
        inbox: str,
        window: int,
        retry_timeout_s: float | None,
        retry_spread: Callable[[], float],
    ) -> None:
        """Create without sends.

        Args:
            inbox: of this account: it numbers everything sent to other inboxes.
            counters: the next counter of rooms whose numbering a program restores.
            window: maximum number of unacknowledged sends.
            retry_timeout_s: how long BUSY and UNAVAILABLE are retried before they are the outcome;
                None: for ever.
            retry_spread: numbers over [0, 1): waiting clients do not all return at once.
        """
        self._restored = dict(counters)
        self._inbox = inbox
        self._rooms: dict[str, RoomSends] = {}
        self._ready: dict[str, None] = {}
        """Logs with something to transmit now."""
        self._waiting: dict[str, None] = {}
        """Logs whose rewind waits for its time."""
        self._window = max(1, min(window, limits.SENDS_UNACKNOWLEDGED_MAX))
        self._retry_timeout_s = retry_timeout_s
        self._spread = retry_spread
        self.count = 0
        """Sends without a final answer."""
        self.bytes = 0
        self.in_flight = 0
        self.in_flight_max = limits.SENDS_UNACKNOWLEDGED_MAX
        """What the server accepts at once (WELCOME)."""
        self.resent = 0
        """Transmissions beyond the first of each send, for statistics."""
        self._outcomes: list[Outcome] = []

    # --- calls ------------------------------------------------------------------------------
    def has_space(self, body_bytes: int) -> bool:
        """True if the window has space for one more message of this size."""
        size = body_bytes + ENVELOPE_OVERHEAD_BYTES
        return self.count == 0 or (
            self.count < self._window and self.bytes + size <= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        )

    def add(self, offer: Offer, token: object) -> None:
        """Queue a message. The caller has checked ``has_space``."""
        room = self._inbox if offer.log.startswith(INBOX_PREFIX) else offer.log
        sends = self._rooms.get(room)
        if sends is None:
            restored = self._restored.get(room)
            sends = self._rooms[room] = RoomSends(room, restored or 1, restored is not None)
        send = PendingSend(sends.next_counter, offer, token)
        sends.next_counter += 1
        sends.pending[send] = None
        sends.unsent.append(send)
        self.count += 1
        self.bytes += send.size
        if not sends.rewind:
            self._ready[room] = None

    def outcomes(self) -> list[Outcome]:
        """Return the sends that have ended since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def counters(self) -> dict[str, int]:
        """Return for each room the counter of the first unacknowledged send, or of the next one."""
        counters = dict(self._restored)
        for room, sends in self._rooms.items():
            first = sends.first
            counters[room] = sends.next_counter if first is None else first.counter
        return counters

    # --- the connection --------------------------------------------------------------------------
    def online(self, sends_max: int) -> None:
        """A new connection is logged in: everything pending is sent again, in order."""
        self.in_flight_max = max(1, min(sends_max, limits.SENDS_UNACKNOWLEDGED_MAX))
        for sends in self._rooms.values():
            if sends.pending:
                sends.unsent = deque(sends.pending)
                self._ready[sends.room] = None

    def offline(self) -> None:
        """The connection has ended, and with it every outstanding answer."""
        for sends in self._rooms.values():
            for send in sends.in_flight.values():
                send.maybe_stored = True
            sends.in_flight.clear()
            sends.unsent.clear()
            sends.rewind = False
            sends.retry_at = 0.0
            sends.restart = False
        self.in_flight = 0
        self._ready.clear()
        self._waiting.clear()

    def next_deadline(self) -> float | None:
        """Return when a waiting room may continue."""
        if not self._waiting:
            return None
        return min(self._rooms[room].retry_at for room in self._waiting)

    def handle_deadline(self, now: float) -> None:
        """Let the rooms continue whose pause is over."""
        for room in [room for room in self._waiting if self._rooms[room].retry_at <= now]:
            del self._waiting[room]
            self._go_again(self._rooms[room], now)

    def transmit(self) -> Iterator[bytes]:
        """Yield packed SEND envelopes that may be sent now; each one counts as transmitted."""
        while self._ready and self.in_flight < self.in_flight_max:
            room = next(iter(self._ready))
            sends = self._rooms[room]
            unsent, in_flight = sends.unsent, sends.in_flight
            while unsent and self.in_flight < self.in_flight_max:
                if sends.alone and in_flight:
                    break
                send = unsent.popleft()
                counter = send.counter
                self.resent += send.sent
                send.sent = True
                in_flight[counter] = send
                self.in_flight += 1
                yield pack_send(
                    send.log, counter, send.kind, send.content_type, send.body, *send.about,
                    send.identity,
                )  # fmt: skip
            if not unsent or sends.alone:
                del self._ready[room]

    # --- answers ---------------------------------------------------------------------------------
    def acknowledged(self, ack: Ack, now: float) -> None:
        """The server has stored a send."""
        answered = self._answered(ack.log, ack.counter, now)
        if answered is None:
            return
        sends, send = answered
        sends.proven = True
        sends.postponed = sends.alone = False
        stored = (
            Stored(ack.epoch, ack.seq)
            if ack.durability == Survives.PROCESS
            else Stored(ack.epoch, ack.seq, durability_name(ack.durability))
        )
        self._end(sends, send, stored)
        self._continue(sends, now)

    def refused(self, envelope: RefusedEnvelope, now: float) -> bool:
        """The server has not stored a send, temporarily or permanently.

        Returns:
            True when the room begins to wait for a store that cannot be written.
        """
        answered = self._answered(envelope.log, envelope.counter, now)
        if answered is None:
            return False
        sends, send = answered
        code = envelope.code
        begins = code == ErrorCode.UNAVAILABLE and not sends.postponed
        sends.postponed |= begins
        if code in _LATER:
            self._later(sends, send, envelope, now)
        elif code == ErrorCode.UNKNOWN_OUTCOME:
            self._unknown(sends, send, envelope, now)
        else:
            self._never(sends, send, envelope, now)
        self._continue(sends, now)
        return begins

    def fail_all(self, error: ClientError) -> None:
        """The client ends: no more answers arrive."""
        for sends in self._rooms.values():
            for send in list(sends.pending):
                self._end(sends, send, error)
            sends.unsent.clear()
            sends.in_flight.clear()
        self.in_flight = 0
        self._ready.clear()
        self._waiting.clear()

    # --- inside ----------------------------------------------------------------------------------
    def _answered(
        self, room: str, counter: int, now: float
    ) -> tuple[RoomSends, PendingSend] | None:
        """Return the send of an answer; None for an unexpected answer, which has no effect."""
        sends = self._rooms.get(room)
        send = None if sends is None else sends.in_flight.pop(counter, None)
        if sends is None or send is None:
            return None
        self.in_flight -= 1
        if send not in sends.pending:  # it was refused together with one before it
            self._continue(sends, now)
            return None
        return sends, send

    def _end(self, sends: RoomSends, send: PendingSend, result: Stored | ClientError) -> None:
        del sends.pending[send]
        sends.pauses = 0
        self.count -= 1
        self.bytes -= send.size
        self._outcomes.append(Outcome(send.token, result))

    def _later(
        self, sends: RoomSends, send: PendingSend, envelope: RefusedEnvelope, now: float
    ) -> None:
        wait_s = 0.0
        if envelope.code == ErrorCode.EXPECTED:
            # The server has nothing from arg on, so none of these is stored.
            expected = max(1, envelope.arg)
            for pending in sends.pending:
                if pending.counter >= expected:
                    pending.maybe_stored = pending.unclear = False
            first = sends.first
            if first is not None and expected < first.counter and not sends.restart:
                # The server was restored to an earlier state: continue from there.
                sends.renumber(expected)
        else:
            wait_s = envelope.arg / 1000 * (1.0 + self._spread() / 2)
            if send.refused_at is None:
                send.refused_at = now
            send.unclear |= envelope.code == ErrorCode.UNAVAILABLE
            if self._retries_over(send, now):
                if send.maybe_stored or send.unclear:
                    envelope = envelope._replace(code=int(ErrorCode.UNAVAILABLE))
                self._never(sends, send, envelope, now)
                return
        self._go_back(sends, now, wait_s)

    def _retries_over(self, send: PendingSend, now: float) -> bool:
        """True if the caller prefers BUSY, or an unknown outcome, to further waiting."""
        return (
            self._retry_timeout_s is not None
            and send.refused_at is not None
            and now - send.refused_at >= self._retry_timeout_s
        )

    def _unknown(
        self, sends: RoomSends, send: PendingSend, envelope: RefusedEnvelope, now: float
    ) -> None:
        """The server does not know this producer here (any more)."""
        if send is sends.first and not sends.rewind:
            sends.restart = True
        if sends.restart and (send.maybe_stored or not sends.proven):
            # Sent before, possibly stored and forgotten: only the program can decide.
            self._end(sends, send, refused(envelope.code, envelope.arg, envelope.text))
        # Otherwise it was first sent here, or an earlier send was refused: it is not stored.
        self._go_back(sends, now, 0.0)

    def _never(
        self, sends: RoomSends, send: PendingSend, envelope: RefusedEnvelope, now: float
    ) -> None:
        """A final refusal. Its counter is free again, unless the message may be in the log."""
        error: Refused = refused(envelope.code, envelope.arg, envelope.text)
        # The content of a damaged log, or of one whose home has died, is unknown: EXPECTED will
        # tell.
        free = envelope.code not in (
            ErrorCode.ID_CONFLICT, ErrorCode.DAMAGED, ErrorCode.UNAVAILABLE
        )  # fmt: skip
        behind = [other for other in sends.pending if other.counter > send.counter]
        self._end(sends, send, error)
        if not free:
            return
        # A room that was deleted is gone for good, and nothing behind this send is stored: each of
        # the others for that room would be refused in turn, after all were sent again.
        gone = envelope.code == ErrorCode.NO_SUCH_ROOM and send.identity
        ended = 1
        for other in behind:
            if gone and other.identity == gone:
                self._end(sends, other, refused(envelope.code, envelope.arg, envelope.text))
                ended += 1
            else:
                other.counter -= ended
        sends.next_counter -= ended
        sends.alone = True
        # Later transmissions are under way with counters that will not be accepted.
        self._go_back(sends, now, 0.0)

    def _go_back(self, sends: RoomSends, now: float, wait_s: float) -> None:
        if not sends.rewind:
            self._ready.pop(sends.room, None)
            if wait_s == 0.0 and sends.pauses:
                wait_s = RETRY_S_MIN * 2.0 ** min(sends.pauses, 10)
        sends.go_back(now, wait_s)

    def _continue(self, sends: RoomSends, now: float) -> None:
        """Continue, if every transmission is answered."""
        if sends.in_flight:
            return
        if sends.rewind:
            self._drained(sends, now)
        elif sends.unsent:
            self._ready[sends.room] = None

    def _drained(self, sends: RoomSends, now: float) -> None:
        """Every transmission is answered: send again, now or after the pause."""
        if not sends.pending:
            sends.retry_at = now
        sends.pauses += 1
        if sends.pauses == 1 and sends.retry_at <= now + RETRY_S_MIN:
            sends.retry_at = now
        if sends.retry_at <= now:
            self._go_again(sends, now)
        else:
            self._waiting[sends.room] = None

    def _go_again(self, sends: RoomSends, now: float) -> None:
        sends.rewind = False
        sends.retry_at = 0.0
        if sends.restart:
            sends.restart = False
            sends.proven = True
            sends.renumber(1)
        sends.unsent = deque(sends.pending)
        if sends.unsent:
            self._ready[sends.room] = None
