"""Holds direct messages while the recipient's home is asked for permission.

A message to ``@bob`` is first stored in the inbox of its sender, by the sender's home; that is its
moment of acceptance (invariant "One moment of acceptance"). Before that, the home of ``@bob`` is
asked whether he accepts it. The messages of one producer to several people keep their order: a
message waits here until those before it have their answers, too.

The answer travels with the submission and refuses only a *new* message. The store checks for
repeats first, and a repeat is acknowledged whatever was decided since.

A question costs more than the message, and every home answers at once, before other work. So only
a few questions are in flight at a time, and ``fair_queue`` decides which are next: those of light
senders in the turn in which their messages arrive, those of heavy senders at its end. Nobody is
asked about a message behind a refused one, since it cannot be stored. The bound is one for each
home: a home that does not answer stops no messages to people of the others, except those of the
same sender behind one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.bus.messages import Answered
from relay.chat.accounts.requests import MayWrite, pack
from relay.chat.entries import UNDECIDED, Kind
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.server.worker.error_codes import code_of
from relay.server.worker.fair_queue import FairQueue
from relay.server.worker.home.submissions import Waiting
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.accounts.account import Account
    from relay.chat.entries import Submission

PLAIN: Final = frozenset({"", "text/plain"})
ASKED_MAX: Final = 32
"""Questions in flight to one home before it gets another one of a heavy sender: 1 ms of its time.
"""
SERVED_MAX: Final = 256
"""Messages of heavy senders at a time: a few milliseconds, if nobody has to be asked about them."""
LIGHT_MAX: Final = 8
"""A sender with at most this many messages is light. Fewer than of those that are only stored."""
QUANTUM: Final = 4
"""Messages of a heavy sender at a time: only so many are asked about behind a refused one."""
LEAD_MAX: Final = 64
"""Maximum lead of light senders over the others, in messages."""


class Ask(Protocol):
    """Asks the home of an account."""

    def __call__(self, log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
        """Ask, and call ``then`` with the answer later, whichever home gives it.

        Returns False if too many requests are waiting; ``then`` is then never called.
        """


class _Question:
    """A message whose verdict was requested, or is known but not yet in order."""

    __slots__ = ("home", "verdict", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.verdict = UNDECIDED
        self.home: object = None
        """Whom the question went to, if there was one."""


class _Flow:
    """The messages of one producer."""

    __slots__ = ("asked", "behind", "doomed", "finish", "producer", "queued", "waiting")

    def __init__(self, producer: bytes) -> None:
        self.producer = producer
        self.waiting: deque[Waiting] = deque()
        """Messages that were not asked about yet."""
        self.asked: deque[_Question] = deque()
        """Messages before those in ``waiting``."""
        self.queued = False
        """True while it is in ``Permissions._new``, ``_queue`` or ``_parked``."""
        self.finish = 0.0
        """See ``FairQueue``."""
        self.behind = 0
        """Counter of a refused message, while messages wait that arrived before its refusal."""
        self.doomed = 0
        """How many of those wait; the ones with a higher counter cannot be stored."""


class Permissions:
    """The direct messages that wait for permission from their recipients' homes."""

    def __init__(
        self,
        ask: Ask,
        account_of: Callable[[str], Account],
        submit: Callable[[list[Waiting]], None],
        home_of: Callable[[str], object],
    ) -> None:
        """Create without messages.

        Args:
            ask: asks another home, or this one.
            account_of: returns the account of a handle whose home this is.
            submit: takes a submission whose verdict is known.
            home_of: returns what stands for the home of a log.
        """
        self._ask = ask
        self._account_of = account_of
        self._submit = submit
        self._home_of = home_of
        self._flows: dict[bytes, _Flow] = {}
        """By producer; never empty."""
        self._new: list[_Flow] = []
        """Flows that began to wait; how much they have is not known yet."""
        self._queue: FairQueue[_Flow] = FairQueue(
            quantum=QUANTUM, light_max=LIGHT_MAX, lead_max=LEAD_MAX
        )
        self._parked: dict[object, deque[_Flow]] = {}
        """Flows of heavy senders whose next message is for a home that is asked enough."""
        self.waiting = 0
        """Number of producers with messages that were not asked about. Kept, not counted: each turn
        looks at it."""
        self._asked: dict[object, int] = {}
        """Number of questions in flight to each home, if there are any."""
        self.decided = False
        """True once anything was submitted; the turn sets it to False."""

    def take(self, waiting: Waiting) -> None:
        """Take a submission, and submit it again when its verdict is known and it is next in order.

        The sender owns the log. The recipient may be anybody, including the owner. Nobody is asked
        before ``ask_light`` or ``ask_heavy``.
        """
        producer = waiting.submission.producer
        flow = self._flows.get(producer)
        if flow is None:
            flow = self._flows[producer] = _Flow(producer)
        flow.waiting.append(waiting)
        if not flow.queued:
            flow.queued = True
            self.waiting += 1
            self._new.append(flow)

    # --- asking -------------------------------------------------------------------------------
    def ask_light(self, *, heavy_paused: bool = False) -> None:
        """Ask about messages of light senders, as ``Submissions.take_light`` takes theirs."""
        queue = self._queue
        for flow in self._new:
            queue.add(flow, flow.finish, len(flow.asked) + len(flow.waiting))
        self._new.clear()
        # Nothing is reserved for heavy senders who are parked, and those are not in the queue.
        while queue.has_light if heavy_paused else queue.light_first:
            self._serve(queue.pop_light(), LIGHT_MAX, heavy=False)

    @property
    def has_room(self) -> bool:
        """True if ``ask_heavy`` would do something."""
        asked = self._asked
        return self._queue.waiting > 0 or any(
            asked.get(home, 0) < ASKED_MAX for home in self._parked
        )

    def ask_heavy(self) -> None:
        """Ask about messages of the others, a few of each in turn, as far as there is room.

        About some of them nobody has to be asked, so there is a limit for those, too.
        """
        for home in list(self._parked):
            self._unpark(home)
        queue, left = self._queue, SERVED_MAX
        while queue.waiting and left > 0:
            if queue.light_first:  # it is neither parked nor marked
                left -= 1 + self._serve(queue.pop_light(), LIGHT_MAX, heavy=False)
            else:
                left -= 1 + self._serve(queue.pop(), QUANTUM, heavy=True)

    def _serve(self, flow: _Flow, quantum: int, *, heavy: bool) -> int:
        """Ask about some messages of a flow, and queue or park it if there are more.

        Returns how many these were.
        """
        waiting, count, parked = flow.waiting, 0, False
        while waiting and count < quantum:
            if heavy and self._asks_enough(flow, waiting[0]):
                parked = True
                break
            waiting[0].heavy = heavy
            self._ask_about(flow, waiting.popleft())
            count += 1
        flow.finish = self._queue.charge(flow, flow.finish, count, drained=not waiting)
        if parked:
            self._parked.setdefault(self._home_of(_inbox(waiting[0])), deque()).append(flow)
        elif waiting:
            self._queue.add(flow, flow.finish, len(flow.asked) + len(waiting))
        else:
            flow.queued = False
            self.waiting -= 1
        self._submit_decided(flow)
        return count

    def _asks_enough(self, flow: _Flow, waiting: Waiting) -> bool:
        """Return True if the home that must be asked about a message has enough questions."""
        submission = waiting.submission
        assert submission.extra is not None
        if flow.doomed and submission.counter > flow.behind:
            return False  # nobody is asked
        return self._asked.get(self._home_of(_inbox(waiting)), 0) >= ASKED_MAX

    def _unpark(self, home: object) -> None:
        """Queue as many flows as this home may be asked about now."""
        flows = self._parked[home]
        room = ASKED_MAX - self._asked.get(home, 0)
        while flows and room > 0:
            room -= 1
            flow = flows.popleft()
            self._queue.add(flow, flow.finish, len(flow.asked) + len(flow.waiting))
        if not flows:
            del self._parked[home]

    def _ask_about(self, flow: _Flow, waiting: Waiting) -> None:
        submission = waiting.submission
        extra = submission.extra
        assert extra is not None
        asked = _Question(waiting)
        flow.asked.append(asked)
        if flow.doomed:
            flow.doomed -= 1
            if submission.counter > flow.behind:
                # The store will refuse it for its counter. If not, because the refused one was a
                # repeat, BUSY: the client sends it again, and then it is asked about.
                asked.verdict = int(ErrorCode.BUSY)
                return
            flow.doomed = 0
        if extra.to == submission.sender:
            asked.verdict = 0
            return
        try:
            chain = self._account_of(submission.sender).chain
        except StoreError as error:
            asked.verdict = int(code_of(error))
            return
        if chain is None:
            asked.verdict = int(ErrorCode.KEY_REFUSED)  # the account has been removed meanwhile
        elif self._ask(
            log := _inbox(waiting),
            submission.sender,
            pack(MayWrite(chain.root)),
            lambda answer: self._answered(flow, asked, answer.code),
        ):
            asked.home = self._home_of(log)
            self._asked[asked.home] = self._asked.get(asked.home, 0) + 1
        else:
            asked.verdict = int(ErrorCode.BUSY)

    def _answered(self, flow: _Flow, asked: _Question, code: int) -> None:
        home = asked.home
        left = self._asked[home] - 1
        if left:
            self._asked[home] = left
        else:
            del self._asked[home]
        if code == ErrorCode.NOT_ACCEPTED and is_erasure_alone(asked.waiting.submission):
            code = 0  # in the answer, too: it does not reveal whether the sender is blocked
        asked.verdict = code
        if code:
            flow.behind, flow.doomed = asked.waiting.submission.counter, len(flow.waiting)
        self._submit_decided(flow)

    def _submit_decided(self, flow: _Flow) -> None:
        """Submit messages with a verdict, up to the first without one."""
        while flow.asked and flow.asked[0].verdict != UNDECIDED:
            first = flow.asked.popleft()
            waiting, verdict = first.waiting, first.verdict
            submission = waiting.submission
            assert submission.extra is not None
            decided = submission.extra._replace(verdict=verdict)
            decided_on = submission._replace(extra=decided)
            self._submit([Waiting(waiting.port, waiting.tag, decided_on, waiting.heavy)])
            self.decided = True
        self._drop_empty(flow)

    def _drop_empty(self, flow: _Flow) -> None:
        if not flow.asked and not flow.waiting and self._flows.get(flow.producer) is flow:
            del self._flows[flow.producer]

    # --- cancelling ---------------------------------------------------------------------------
    def forget(self, unwanted: Callable[[Waiting], bool]) -> None:
        """Drop some of the waiting messages and ignore their answers."""
        for flow in list(self._flows.values()):
            flow.asked = deque([asked for asked in flow.asked if not unwanted(asked.waiting)])
            flow.waiting = deque([one for one in flow.waiting if not unwanted(one)])
            flow.doomed = 0
            self._drop_empty(flow)

    def refuse(self, owns: Callable[[int], bool]) -> list[tuple[Port, int]]:
        """This worker is no longer the home of some partitions.

        Return the workers that must be told, with the partition, once each.
        """
        told: dict[tuple[Port, int], None] = {}
        for flow in self._flows.values():
            for waiting in (*[asked.waiting for asked in flow.asked], *flow.waiting):
                partition = partition_of(waiting.submission.log)
                if not owns(partition):
                    told[waiting.port, partition] = None
        if told:  # rarely: usually nothing has to be built anew
            self.forget(lambda waiting: not owns(partition_of(waiting.submission.log)))
        return list(told)


def _inbox(waiting: Waiting) -> str:
    """Return the recipient's inbox."""
    extra = waiting.submission.extra
    assert extra is not None
    return INBOX_PREFIX + extra.to


def is_erasure_alone(submission: Submission) -> bool:
    """Return True if the recipient cannot refuse it: it only erases what the sender has written.

    With a reason it would be a message.
    """
    no_reason = not submission.body and submission.content_type in PLAIN
    return submission.kind == Kind.REDACTION and no_reason
