"""What one connection sends to logs: offered to their homes, answered, within a window.

Beyond the window the socket is not read. What the connection, its account or its source sends
beyond its rate is refused here, with a time; who goes on all the same is not read for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.server.worker.connection.holds import Hold
from relay.server.worker.member.sender import OVERHEAD_BYTES, Sender
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Refused
from relay.wire.packing import pack, pack_acks

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
PATIENCE: Final = 64
"""What one connection may be refused for its budgets in ``PATIENCE_S``."""
PATIENCE_S: Final = 1.0


class Sends(Sender):
    """See the module's docstring."""

    __slots__ = (
        "_clock", "_durability", "_forward", "_held", "_owner", "_patience", "_patient_until",
        "_reading", "_refusals", "_run", "_run_bytes", "_spending", "room",
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
        self._patience = 0
        self._patient_until = 0.0
        """Until then so many refusals are made before the socket is not read any more."""

    def spend_by(self, spending: Spending | None) -> None:
        """Take another budget from now on; None: nothing is bounded."""
        self._spending = spending

    def spend(self, log: str, size: int) -> Refusal | None:
        """Pay for something that is stored in a log; return why it cannot be paid for now."""
        if self._spending is None:
            return None
        now = self._clock()
        refusal = self._spending.refusal(log, size, now)
        if refusal is not None:
            self._refused_for_budget(refusal, now)
        return refusal

    def spend_work(self, units: int) -> Refusal | None:
        """Pay for a request; return why it cannot be paid for now."""
        if self._spending is None:
            return None
        now = self._clock()
        refusal = self._spending.work(units, now)
        if refusal is not None:
            self._refused_for_budget(refusal, now)
        return refusal

    def owe_work(self, units: int) -> None:
        """Pay for what a request has turned out to cost besides."""
        if self._spending is not None:
            self._spending.owe(units, self._clock())

    def _refused_for_budget(self, refusal: Refusal, now: float) -> None:
        """Count a refusal. Who does not wait as it was told is not read for a while.

        To refuse costs as much as to accept, nearly; a client that waits does not notice.
        """
        assert self._spending is not None
        self._refusals.count(refusal.budget, self._spending.source, now)
        if now >= self._patient_until:
            self._patience = PATIENCE
            self._patient_until = now + PATIENCE_S
        self._patience -= 1
        if not self._patience:
            self._reading.hold(Hold.BUDGET)

    def check_patience(self, now: float) -> None:
        """Read again from who was not read for that. Called about once a second."""
        if now >= self._patient_until:
            self._reading.release(Hold.BUDGET)

    def submit(self, submission: Submission) -> None:
        """Take a message for the log's home, which has it after the next ``offer``."""
        size = len(submission.body)
        if self._spending is not None:
            refusal = self.spend(submission.log, size)
            if refusal is not None:
                code = ErrorCode.LIMIT if refusal.most else ErrorCode.BUSY
                self._refuse(submission, code, refusal.most or refusal.wait_ms, refusal.text)
                return
        self.count += 1
        self.bytes += size
        if (
            self.count >= limits.SENDS_UNACKNOWLEDGED_MAX
            or self.bytes >= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX
        ):
            self._held = True
            self._reading.hold(Hold.WINDOW)
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
        self.offer()
        self._run = [submission]
        self._run_bytes = size + OVERHEAD_BYTES

    def offer(self) -> None:
        """Offer what was taken. Called before anything else that the client asks for is begun."""
        run, self._run = self._run, None
        if run is not None:
            self._forward.submit(self, run)

    # --- forward.Sender -----------------------------------------------------------------------
    def acknowledged(self, sends: list[Submission], epoch: bytes, seq: int) -> None:
        """Committed."""
        log, answer_send, durability = sends[0].log, self._owner.answer_send, self._durability
        assert sends[-1].log == log, "an epoch is of one log"
        counters: list[int] = []
        size = 0
        for submission in sends:
            counters.append(submission.counter)
            size += len(submission.body)
        for start in range(0, len(counters), ACKS_PER_ANSWER):
            some = counters[start : start + ACKS_PER_ANSWER]
            answer_send(pack_acks(log, some, epoch, seq + start, durability))
        self._answered(len(counters), size)

    def refused(self, submission: Submission, code: int, arg: int, text: str) -> None:
        """Not stored."""
        self._refuse(submission, code, arg, text)
        self._answered(1, len(submission.body))

    def pause_reading(self) -> None:
        """A home cannot keep up."""
        self._reading.hold(Hold.CREDIT)

    def resume_reading(self) -> None:
        """It can again."""
        self._reading.release(Hold.CREDIT)

    # --- inside -------------------------------------------------------------------------------
    def _refuse(self, submission: Submission, code: int, arg: int, text: str) -> None:
        refused = Refused(submission.log, submission.counter, int(code), arg, text)
        self._owner.answer_send(pack(refused))

    def _answered(self, count: int, size: int) -> None:
        self.count -= count
        self.bytes -= size
        if (
            self._held
            and self.count <= limits.SENDS_UNACKNOWLEDGED_MAX // 2
            and self.bytes <= limits.SENDS_UNACKNOWLEDGED_BYTES_MAX // 2
        ):
            self._held = False
            self._reading.release(Hold.WINDOW)
