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
asked about a message behind a refused one, since it cannot be stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from relay.bus.messages import Answered, Refused
from relay.chat.accounts.requests import MayWrite, pack
from relay.chat.entries import UNDECIDED
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

LATER: Final = frozenset({ErrorCode.BUSY, ErrorCode.UNAVAILABLE})
ASKED_MAX: Final = 32
"""Questions in flight before another one of a heavy sender is asked: 1 ms of the homes' time."""
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

    __slots__ = ("verdict", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.verdict = UNDECIDED


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
        """True while it is in ``Permissions._new`` or ``_queue``."""
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
    ) -> None:
        """Create without messages.

        Args:
            ask: asks another home, or this one.
            account_of: returns the account of a handle whose home this is.
            submit: takes a submission whose verdict is known.
        """
        self._ask = ask
        self._account_of = account_of
        self._submit = submit
        self._flows: dict[bytes, _Flow] = {}
        """By producer; never empty."""
        self._new: list[_Flow] = []
        """Flows that began to wait; how much they have is not known yet."""
        self._queue: FairQueue[_Flow] = FairQueue(
            quantum=QUANTUM, light_max=LIGHT_MAX, lead_max=LEAD_MAX
        )
        self.waiting = 0
        """Number of producers with messages that were not asked about. Kept, not counted: each turn
        looks at it."""
        self.asked = 0
        """Number of questions in flight."""
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
        # While no heavy sender can be asked about, nothing is reserved for them either: a home that
        # does not answer would stop the direct messages of everybody.
        heavy_paused = heavy_paused or self.asked >= ASKED_MAX
        while queue.has_light if heavy_paused else queue.light_first:
            self._serve(queue.pop_light(), LIGHT_MAX, heavy=False)

    @property
    def has_room(self) -> bool:
        """True if ``ask_heavy`` would ask."""
        return self._queue.waiting > 0 and self.asked < ASKED_MAX

    def ask_heavy(self) -> None:
        """Ask about messages of the others, a few of each in turn, as far as there is room."""
        queue = self._queue
        while self.has_room:
            self._serve(queue.pop(), QUANTUM, heavy=True)

    def _serve(self, flow: _Flow, quantum: int, *, heavy: bool) -> None:
        flow.queued = False
        self.waiting -= 1
        waiting, count = flow.waiting, 0
        while waiting and count < quantum:
            waiting[0].heavy = heavy
            self._ask_about(flow, waiting.popleft())
            count += 1
        flow.finish = self._queue.charge(flow.finish, count, drained=not waiting)
        if waiting:
            flow.queued = True
            self.waiting += 1
            self._queue.add(flow, flow.finish, len(flow.asked) + len(waiting))
        self._submit_decided(flow)

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
            INBOX_PREFIX + extra.to,
            submission.sender,
            pack(MayWrite(chain.root)),
            lambda answer: self._answered(flow, asked, answer.code),
        ):
            self.asked += 1
        else:
            asked.verdict = int(ErrorCode.BUSY)

    def _answered(self, flow: _Flow, asked: _Question, code: int) -> None:
        self.asked -= 1
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

    def refuse(self, partition: int) -> list[Port]:
        """This worker is no longer the home of a partition.

        Return the workers that must be told.
        """
        if not self._flows:
            return []
        ports: dict[Port, None] = {}
        for flow in self._flows.values():
            for waiting in (*[asked.waiting for asked in flow.asked], *flow.waiting):
                if partition_of(waiting.submission.log) == partition:
                    ports[waiting.port] = None
        if not ports:  # the usual case: nothing to forget, so nothing to build anew
            return []
        self.forget(lambda waiting: partition_of(waiting.submission.log) == partition)
        return list(ports)


def refused(tag: int, code: int, retry_ms: int) -> Refused:
    """Return the answer to a message that its recipient's home refuses."""
    return Refused(tag, code, retry_ms if code in LATER else 0, "")
