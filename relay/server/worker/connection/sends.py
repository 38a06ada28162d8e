"""What one connection sends to logs: offered to their homes, answered, within a window.

Beyond the window the socket is not read. What the connection, its account or its source sends
beyond its rate is refused here, with a time. What is refused, and what the connection knows to be
stored and sends again, is ``waste``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from relay import limits
from relay.server.worker.connection.pauses import Pause
from relay.server.worker.connection.schedule import UNITS_OF_WORK
from relay.server.worker.connection.waste import (
    BEHIND_UNITS,
    BUDGET_UNITS,
    REPEAT_UNITS,
    of_send,
)
from relay.server.worker.member.sender import OVERHEAD_BYTES, Sender
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Refused
from relay.wire.packing import pack, pack_ack, pack_acks

if TYPE_CHECKING:
    from relay.chat.entries import Submission
    from relay.server.worker.connection.reading import Owner, Reading
    from relay.server.worker.connection.spending import Refusal, Spending
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.refusals import Refusals


ACKS_PER_ANSWER: Final = 64
"""What is queued as one: some KiB, a small part of a record and of what may wait to be read."""
RUN_BYTES: Final = 16_384
"""What is offered as one, about: a home that cannot keep up stops or refuses no more at once."""
Place: TypeAlias = tuple[bytes, int]
"""Of an entry in its log: epoch and sequence number."""
_NOWHERE: Final[Place] = (b"", 0)
_NONE: Final[dict[str, Place]] = {}
"""No logs. Shared, and never added to."""
_NO_GAPS: Final[dict[str, int]] = {}
"""Likewise."""


class Sends(Sender):
    """See the module's docstring."""

    __slots__ = (
        "_acked", "_acked_log", "_clock", "_durability", "_forward", "_gaps", "_held", "_others",
        "_owner", "_reading", "_refusals", "_run", "_run_bytes", "_spending", "room",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        reading: Reading,
        forward: Forward,
        spending: Spending | None,
        refusals: Refusals,
        clock: Callable[[], float],
        durability: int,
    ) -> None:
        """Begin with none.

        Args:
            owner: gets the answers.
            reading: of the same connection.
            forward: of the worker.
            spending: what may be sent; None: nothing of it is bounded.
            refusals: of the worker.
            clock: monotonic seconds.
            durability: what commits survive (``wire.codes.Survives``).
        """
        super().__init__()
        self._owner = owner
        self._reading = reading
        self._forward = forward
        self._spending = spending
        self._refusals = refusals
        self._clock = clock
        self._durability = durability
        self.room = ""
        """The last log that was sent to, if its name is a room's: who sends on needs no other look.
        """
        self._run: list[Submission] | None = None
        """To one log, taken and not offered yet."""
        self._run_bytes = 0
        self._held = False
        """True while the window keeps the socket from being read."""
        self._acked_log = ""
        self._acked = _NOWHERE
        """Of the last log: where the last message is that was acknowledged and is no repeat."""
        self._others: dict[str, Place] = _NONE
        """Likewise of others."""
        self._gaps: dict[str, int] = _NO_GAPS
        """By log: the counter that was refused for a budget, and did not come again yet."""

    def spend_by(self, spending: Spending | None) -> None:
        """Take another budget from now on; None: nothing is bounded."""
        self._spending = spending

    def spend(self, log: str, size: int) -> Refusal | None:
        """Pay for something that is stored in a log; return why it cannot be paid for now."""
        return self._paid(lambda spending, now: spending.refusal(log, size, now))

    def spend_room(self, log: str) -> Refusal | None:
        """Pay for a room that is created; return why it cannot be paid for now."""
        return self._paid(lambda spending, now: spending.room(log, now))

    def spend_work(self, units: int) -> Refusal | None:
        """Pay for a request; return why it cannot be paid for now."""
        return self._paid(lambda spending, now: spending.work(units, now))

    def _paid(self, pay: Callable[[Spending, float], Refusal | None]) -> Refusal | None:
        if self._spending is None:
            return None
        now = self._clock()
        refusal = pay(self._spending, now)
        if refusal is not None:
            self._refused_for_budget(refusal, now)
        return refusal

    def owe_work(self, units: int) -> None:
        """Pay for what a request has turned out to cost besides."""
        self._reading.owe(units * UNITS_OF_WORK)
        if self._spending is not None:
            self._spending.owe(units, self._clock())

    def _refused_for_budget(self, refusal: Refusal, now: float) -> None:
        """Count a refusal: to refuse costs as much as to accept, nearly."""
        assert self._spending is not None
        self._refusals.count(refusal.budget, self._spending.source, now)
        self._reading.waste(BUDGET_UNITS)

    def submit(self, submission: Submission) -> None:
        """Take a message for the log's home, which has it after the next ``offer``."""
        size = len(submission.body)
        if self._spending is not None and not self._pay(submission, size):
            return
        self.count += 1
        self.bytes += size
        if (
            self.count >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        ):
            self._held = True
            self._reading.pause(Pause.WINDOW)
        run = self._run
        if (
            run is not None
            and self._run_bytes < RUN_BYTES
            and submission.extra is None
            and run[0].extra is None
            and submission.log == run[0].log
        ):
            run.append(submission)
            self._run_bytes += size + OVERHEAD_BYTES
            return
        if run is not None:
            self.offer()
        self._run = [submission]
        self._run_bytes = size + OVERHEAD_BYTES

    def offer(self) -> None:
        """Offer what was taken. Called before anything else that the client asks for is begun."""
        run, self._run = self._run, None
        if run is not None:
            self._forward.submit(self, run)

    def _pay(self, submission: Submission, size: int) -> bool:
        """Pay for a message; False: it was refused.

        What was sent behind one that is refused for a budget cannot be stored either, until that
        one comes again. So it costs nothing of what may be sent then.
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
            self._owner.answer_send(pack(refused))
        self._reading.waste(BEHIND_UNITS)

    def _refuse_for(self, refusal: Refusal, log: str, counter: int) -> None:
        code = ErrorCode.LIMIT if refusal.most else ErrorCode.BUSY
        arg = refusal.most or refusal.wait_ms
        self._owner.answer_send(pack(Refused(log, counter, int(code), arg, refusal.text)))

    # --- sender.Sender ------------------------------------------------------------------------
    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """Committed, now or before; what was before comes by itself."""
        log, answer_send, durability = sends[0].log, self._owner.answer_send, self._durability
        assert sends[-1].log == log, "an epoch is of one log"
        if len(sends) == 1:  # the lone message
            only = sends[0]
            size = len(only.body)
            answer_send(pack_ack(log, only.counter, epoch, seq, durability))
        else:
            counters: list[int] = []
            size = 0
            for submission in sends:
                counters.append(submission.counter)
                size += len(submission.body)
            for start in range(0, len(counters), ACKS_PER_ANSWER):
                some = counters[start : start + ACKS_PER_ANSWER]
                answer_send(pack_acks(log, some, epoch, seq + start, durability))
        last = seq + len(sends) - 1
        if last > self._acked[1] and log == self._acked_log:
            self._acked = epoch, last
        else:
            self._note_acked(log, epoch, last)
        self._answered(len(sends), size)

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored."""
        self.refuse(submission.log, submission.counter, code, arg, text)
        self._answered(1, len(submission.body))

    def pause_reading(self) -> None:
        """A home cannot keep up."""
        self._reading.pause(Pause.CREDIT)

    def resume_reading(self) -> None:
        """It can again."""
        self._reading.resume(Pause.CREDIT)

    def refuse(self, log: str, counter: int, code: int, arg: int = 0, text: str = "") -> None:
        """Answer that a message is not stored."""
        self._owner.answer_send(pack(Refused(log, counter, int(code), arg, text)))
        self._reading.waste(of_send(code))

    # --- inside -------------------------------------------------------------------------------
    def _note_acked(self, log: str, epoch: bytes, seq: int) -> None:
        """Note where the last message of a log is; one that is not behind it is a repeat.

        A connection's messages to one log are stored in the order in which it has sent them. One
        that comes after a reconnect, or again because it was refused, is behind all of them.
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
            self._held
            and self.count <= limits.SENDS_UNACKNOWLEDGED_MAX // 2
            and self.bytes <= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX // 2
        ):
            self._held = False
            self._reading.resume(Pause.WINDOW)
