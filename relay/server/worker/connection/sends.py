"""The messages that one connection sends: offered to the logs' homes, answered, within a window.

When the window is full the socket is not read. Sends beyond the rate of the connection, its account
or its source are refused here, with the time of a retry. Refused sends, and resends of messages
that this connection knows to be stored, are charged as ``waste``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from relay import limits
from relay.chat.entries import Kind, Submission
from relay.chat.names import is_room
from relay.server.worker.connection.budgets.spending import MESSAGE_BYTES
from relay.server.worker.connection.budgets.token_bucket import INFINITE
from relay.server.worker.connection.budgets.waste import (
    BEHIND_UNITS,
    BUDGET_UNITS,
    REPEAT_UNITS,
    of_send,
)
from relay.server.worker.connection.owner import SendsOfRecords
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.schedule import UNITS_OF_WORK
from relay.server.worker.member.sender import OVERHEAD_BYTES
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Refused, Send
from relay.wire.packing import pack, pack_ack, pack_acks

if TYPE_CHECKING:
    from relay.server.worker.connection.budgets.spending import Refusal, Spending
    from relay.server.worker.connection.owner import Owner
    from relay.server.worker.connection.reading import Reading
    from relay.server.worker.delivery.outbox import Outbox
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.refusals import Refusals
    from relay.wire.envelopes import ClientEnvelope

MESSAGE: Final = int(Kind.MESSAGE)

ACKS_PER_ANSWER: Final = 64
"""ACKs queued as one: a few KiB, a small part of a record and of the limit for unread bytes."""
RUN_BYTES: Final = 16_384
"""Approximate size of one offer: a home that cannot keep up pauses or refuses at most this much."""
Place: TypeAlias = tuple[bytes, int]
"""Position of an entry in its log: epoch and sequence number."""
_NOWHERE: Final[Place] = (b"", 0)
_NONE: Final[dict[str, Place]] = {}
"""No logs. Shared; never modified."""
_NO_GAPS: Final[dict[str, int]] = {}
"""No gaps. Shared; never modified."""
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""


class Sends(SendsOfRecords):
    """The sends of one connection."""

    __slots__ = (
        "_acked", "_acked_log", "_clock", "_durability", "_forward", "_gaps", "_others",
        "_outbox", "_owner", "_reading", "_refusals", "_run", "_run_bytes", "_spending",
        "_window_full", "room",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        reading: Reading,
        outbox: Outbox,
        forward: Forward,
        spending: Spending | None,
        refusals: Refusals,
        clock: Callable[[], float],
        durability: int,
    ) -> None:
        """Create without sends.

        Args:
            owner: the session.
            reading: of the same connection.
            outbox: takes the answers, unless the connection has ended.
            forward: of the worker.
            spending: the limits for sending; None: there are none.
            refusals: of the worker.
            clock: monotonic seconds.
            durability: what commits survive (``wire.codes.Survives``).
        """
        super().__init__()
        self._owner = owner
        self._reading = reading
        self._outbox = outbox
        self._forward = forward
        self._spending = spending
        self._refusals = refusals
        self._clock = clock
        self._durability = durability
        self.room = ""
        """The name of the last log sent to, if it is a room: saves a lookup for repeated sends."""
        self._run: list[Submission] | None = None
        """Sends to one log that were taken and not offered yet."""
        self._run_bytes = 0
        """Their size, as ``forward`` counts it."""
        self._window_full = False
        """True while the window is full and the socket is not read."""
        self._acked_log = ""
        self._acked = _NOWHERE
        """Position of the last acknowledged message in ``_acked_log``, not counting repeats."""
        self._others: dict[str, Place] = _NONE
        """The same for other logs."""
        self._gaps: dict[str, int] = _NO_GAPS
        """By log: the counter of a send that was refused for a budget and has not been sent again.
        """

    def spend_by(self, spending: Spending | None) -> None:
        """Use another budget from now on; None: no limits."""
        self._spending = spending

    def spend(self, log: str, size: int) -> Refusal | None:
        """Pay for something that is stored in a log. Return the refusal, or None."""
        return self._paid(lambda spending, now: spending.refusal(log, size, now))

    def spend_room(self, log: str) -> Refusal | None:
        """Pay for creating a room. Return the refusal, or None."""
        return self._paid(lambda spending, now: spending.room(log, now))

    def spend_work(self, units: int) -> Refusal | None:
        """Pay for a request. Return the refusal, or None."""
        return self._paid(lambda spending, now: spending.work(units, now))

    def spend_account(self) -> Refusal | None:
        """Pay for registering a name. Return the refusal, or None."""
        return self._paid(lambda spending, now: spending.account(now))

    def _paid(self, pay: Callable[[Spending, float], Refusal | None]) -> Refusal | None:
        if self._spending is None:
            return None
        now = self._clock()
        refusal = pay(self._spending, now)
        if refusal is not None:
            self._refused_for_budget(refusal, now)
        return refusal

    def owe_work(self, units: int) -> None:
        """Charge the additional cost of a request afterwards."""
        self._reading.owe(units * UNITS_OF_WORK)
        if self._spending is not None:
            self._spending.owe(units, self._clock())

    def _refused_for_budget(self, refusal: Refusal, now: float) -> None:
        """Count a refusal and charge for it: refusing costs nearly as much as accepting."""
        assert self._spending is not None
        self._refusals.count(refusal.budget, self._spending.source, now)
        self._reading.waste(BUDGET_UNITS)

    def take(self, waiting: list[ClientEnvelope], most: int) -> int:
        """owner.SendsOfRecords: take plain messages to rooms; return how many.

        Stops when the connection is paused. Nearly all messages take this path, so that what the
        messages of a record have in common is looked up once.
        """
        reading = self._reading
        taken = 0
        while taken < most and waiting and not reading.pauses:
            send = waiting[-1]
            if type(send) is not Send or send.kind or send.about_seq:
                break
            log = send.log
            if log != self.room:
                if not is_room(log):  # the canonical form only: an id belongs to one spelling
                    break
                self.room = log
            taken += self._take_row(waiting, most - taken)
        return taken

    def _take_row(self, waiting: list[ClientEnvelope], most: int) -> int:
        """Take plain messages to one room for one run; return how many. The first is plain."""
        room, spending, now = self.room, self._spending, 0.0
        credit = INFINITE
        if spending is not None:
            now = self._clock()
            credit = 0.0 if room in self._gaps else spending.credit(room, now)
        owner = self._owner
        key_id, producer = owner.key_id, owner.producer
        handle, root, operator = owner.actor
        run: list[Submission] = []
        if credit >= 1:
            run = self._run_to(room)
        run_bytes, count, size = self._run_bytes, 0, 0
        count_max = min(most, limits.SENDS_UNACKNOWLEDGED_MAX - self.count)
        if self._reading.pauses:  # the home of the previous run cannot keep up
            count_max = 1
        bytes_max = limits.SENDS_UNACKNOWLEDGED_BYTES_MAX - self.bytes
        while waiting:
            send = waiting[-1]
            if type(send) is not Send or send.log != room or send.kind or send.about_seq:
                break
            waiting.pop()
            body = send.body
            submission = _new(
                Submission,
                (
                    room, handle, key_id, producer, send.counter, MESSAGE, send.content_type, body,
                    root, operator, send.identity, None,
                ),
            )  # fmt: skip
            if credit < 1:  # there are no tokens, or it is not known whether there is this room
                self.submit(submission)
                return 1
            run.append(submission)
            length = len(body)
            count += 1
            size += length
            run_bytes += length + OVERHEAD_BYTES
            credit -= length + MESSAGE_BYTES
            if count >= count_max or size >= bytes_max or run_bytes >= RUN_BYTES or credit < 1:
                break
        self._run_bytes = run_bytes
        if spending is not None:
            spending.charge(size + count * MESSAGE_BYTES, now)
        self._taken(count, size)
        return count

    def submit(self, submission: Submission) -> None:
        """Take a message for the log's home, which receives it with the next ``offer``."""
        size = len(submission.body)
        if self._spending is None or self._pay(submission, size):
            self._put(submission, size)

    def _put(self, submission: Submission, size: int) -> None:
        """Add a message that was paid for to the window and to a run."""
        alone = submission.extra is not None  # then it is a run of its own
        if alone:
            self.offer()
        self._run_to(submission.log).append(submission)
        self._run_bytes += size + OVERHEAD_BYTES
        self._taken(1, size)
        if alone:
            self.offer()

    def _run_to(self, log: str) -> list[Submission]:
        """Return the run for a plain message to a log; the caller adds it, and its size."""
        run = self._run
        if run is not None and self._run_bytes < RUN_BYTES and run[0].log == log:
            return run
        if run is not None:
            self.offer()
        run = self._run = []
        self._run_bytes = 0
        return run

    def _taken(self, count: int, size: int) -> None:
        """Count messages that are in the window from now on."""
        self.count += count
        self.bytes += size
        if (
            self.count >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        ):
            self._window_full = True
            self._reading.pause(Pause.WINDOW)

    def offer(self) -> None:
        """owner.SendsOfRecords: offer the messages taken so far."""
        run, self._run = self._run, None
        if run is not None:
            self._forward.submit(self, run, self._run_bytes)

    def _pay(self, submission: Submission, size: int) -> bool:
        """Pay for a message. False: it was refused.

        Messages sent after one that was refused for a budget cannot be stored until that one is
        sent again, so they are not charged to the budget.
        """
        log, counter = submission.log, submission.counter
        gap = self._gaps.get(log, 0)
        if gap and counter > gap:
            self._refuse_behind(log, counter, gap)
            return False
        refusal = self.spend(log, size)
        if refusal is None:
            if gap == counter:
                del self._gaps[log]
            return True
        if self._gaps is _NO_GAPS or len(self._gaps) >= limits.LOGS_PER_CONNECTION_MAX:
            self._gaps = {}
        self._gaps[log] = counter
        self._refuse_for(refusal, log, counter)
        return False

    def _refuse_behind(self, log: str, counter: int, gap: int) -> None:
        assert self._spending is not None
        now = self._clock()
        refusal = self._spending.empty(now)
        if refusal is not None:
            self._refusals.count(refusal.budget, self._spending.source, now)
            self._refuse_for(refusal, log, counter)
        else:
            refused = Refused(log, counter, int(ErrorCode.EXPECTED), gap, "")
            self._answer(pack(refused))
        self._reading.waste(BEHIND_UNITS)

    def _refuse_for(self, refusal: Refusal, log: str, counter: int) -> None:
        code = ErrorCode.LIMIT if refusal.most else ErrorCode.BUSY
        arg = refusal.most or refusal.wait_ms
        self._answer(pack(Refused(log, counter, int(code), arg, refusal.text)))

    # --- sender.Sender ------------------------------------------------------------------------
    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """Acknowledge committed messages. Repeats are reported in calls of their own."""
        log, outbox, durability = sends[0].log, self._outbox, self._durability
        if len(sends) == 1:  # the common case: one message
            only = sends[0]
            size = len(only.body)
            outbox.answer(pack_ack(log, only.counter, epoch, seq, durability))
        else:
            assert sends[-1].log == log, "an epoch is of one log"
            counters = [submission.counter for submission in sends]
            size = sum([len(submission.body) for submission in sends])
            for start in range(0, len(counters), ACKS_PER_ANSWER):
                some = counters[start : start + ACKS_PER_ANSWER]
                outbox.answer(pack_acks(log, some, epoch, seq + start, durability))
        if outbox.answers > limits.ANSWERS_BYTES_MAX:
            self._owner.wait_for_reader()
        last = seq + len(sends) - 1
        if last > self._acked[1] and log == self._acked_log:
            self._acked = epoch, last
        else:
            self._note_acked(log, epoch, last)
        self._answered(len(sends), size)

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """A home refused a message."""
        extra = submission.extra
        direct = extra is not None and extra.to != ""
        self.refuse(submission.log, submission.counter, code, arg, text, direct=direct)
        self._answered(1, len(submission.body))

    def pause_reading(self) -> None:
        """A home cannot keep up: pause reading."""
        self._reading.pause(Pause.CREDIT)

    def resume_reading(self) -> None:
        """The home can continue."""
        self._reading.resume(Pause.CREDIT)

    def refuse(
        self,
        log: str,
        counter: int,
        code: int,
        arg: int = 0,
        text: str = "",
        *,
        direct: bool = False,
    ) -> None:
        """Tell the client that a message is not stored."""
        self._answer(pack(Refused(log, counter, int(code), arg, text)))
        self._reading.waste(of_send(code, direct=direct))

    # --- inside -------------------------------------------------------------------------------
    def _answer(self, envelope: bytes) -> None:
        self._outbox.answer(envelope)
        if self._outbox.answers > limits.ANSWERS_BYTES_MAX:
            self._owner.wait_for_reader()

    def _note_acked(self, log: str, epoch: bytes, seq: int) -> None:
        """Remember the position of a log's last message. A message that is not after it is a
        repeat.

        A connection's messages to a log are stored in the order of sending. A message that is sent
        again after a reconnect, or after a refusal, is stored after all of them.
        """
        known = self._acked if log == self._acked_log else self._others.get(log, _NOWHERE)
        if epoch == known[0] and seq <= known[1]:
            self._reading.waste(REPEAT_UNITS)
            return
        if log != self._acked_log:
            if self._others is _NONE or len(self._others) >= limits.LOGS_PER_CONNECTION_MAX:
                self._others = {}
            if self._acked_log:
                self._others[self._acked_log] = self._acked
            self._acked_log = log
        self._acked = epoch, seq

    def _answered(self, count: int, size: int) -> None:
        self.count -= count
        self.bytes -= size
        if (
            self._window_full
            and self.count <= limits.SENDS_UNACKNOWLEDGED_MAX // 2
            and self.bytes <= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX // 2
        ):
            self._window_full = False
            self._reading.resume(Pause.WINDOW)
