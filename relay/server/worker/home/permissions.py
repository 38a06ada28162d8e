"""Holds direct messages while the recipient's home is asked for permission.

A message to ``@bob`` is stored in the inbox of its sender first, by the sender's home; that is its
moment of acceptance (invariant "One moment of acceptance"). Before it, the
home of ``@bob`` is asked whether he takes it. What one producer sends to several people keeps its
order: a message waits here until those before it have their answers, too.

The answer travels with the submission, and only a message that is *new* is refused by it: the store
knows first what is a repeat, and a repeat is acknowledged whatever was decided since.

A question is dearer than the message. It goes to any home, which answers it at once, before
whatever else it has been sent. So there are few under way at a time, and who is next goes by the
rules of all that many wait for (``fair_queue``): those who send little are asked about in the turn
in which they send, the others at its end. And nobody is asked about what cannot be stored: what
waits behind a message that was refused.
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
"""Questions under way while the next one is of somebody who sends much: 1 ms of the homes asked."""
LITTLE: Final = 8
"""Who has so many at most goes first: fewer than of what is just stored (``submissions``)."""
QUANTUM: Final = 4
"""Messages of the others at a time: behind one that is refused, few were asked about in vain."""
LEAD_MAX: Final = 64
"""By how much those who send little may be ahead of the others, in messages."""


class Ask(Protocol):
    """Asks the home of an account."""

    def __call__(self, log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
        """Have ``then`` called with the answer, later, whichever home gives it.

        False: too much is asked at once, and it is never called.
        """


class _Asked:
    """One whose verdict was asked for, or is known and waits for those before it."""

    __slots__ = ("verdict", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting = waiting
        self.verdict = UNDECIDED


class _Flow:
    """What one producer has sent."""

    __slots__ = ("asked", "behind", "doomed", "finish", "producer", "queued", "waiting")

    def __init__(self, producer: bytes) -> None:
        self.producer = producer
        self.waiting: deque[Waiting] = deque()
        """Nobody was asked yet."""
        self.asked: deque[_Asked] = deque()
        """These come before them."""
        self.queued = False
        """True while it is in ``Permissions._new`` or ``_queue``."""
        self.finish = 0.0
        """See ``FairQueue``."""
        self.behind = 0
        """The counter of a message that was refused, while any waits that came before that."""
        self.doomed = 0
        """How many of those wait."""


class Permissions:
    """The direct messages that wait for the word of their recipients' homes."""

    def __init__(
        self,
        ask: Ask,
        account_of: Callable[[str], Account],
        submit: Callable[[list[Waiting]], None],
    ) -> None:
        """Begin with none.

        Args:
            ask: asks another home, or this one.
            account_of: returns the account of a handle whose home this is.
            submit: takes a submission whose verdict is known.
        """
        self._ask = ask
        self._account_of = account_of
        self._submit = submit
        self._flows: dict[bytes, _Flow] = {}
        """By producer, none of them empty."""
        self._new: list[_Flow] = []
        """Flows that have begun to wait, of which it is not known yet how much they have."""
        self._queue: FairQueue[_Flow] = FairQueue(quantum=QUANTUM, little=LITTLE, lead_max=LEAD_MAX)
        self.asked = 0
        """How many questions are under way."""
        self.decided = False
        """True once anything was submitted; the turn sets it to False."""

    def take(self, waiting: Waiting) -> None:
        """Take a submission, and submit it again when its verdict is known and its turn has come.

        Its sender is its log's owner, and its recipient anybody, even the owner. Nobody is asked
        before ``ask_little`` or ``ask_others``.
        """
        producer = waiting.submission.producer
        flow = self._flows.get(producer)
        if flow is None:
            flow = self._flows[producer] = _Flow(producer)
        flow.waiting.append(waiting)
        if not flow.queued:
            flow.queued = True
            self._new.append(flow)

    # --- asking -------------------------------------------------------------------------------
    @property
    def waits(self) -> bool:
        """True while anything waits to be asked about."""
        return bool(self._new) or self._queue.waiting > 0

    @property
    def senders(self) -> int:
        """Of how many something waits to be asked about."""
        return len(self._new) + self._queue.waiting

    def ask_little(self, *, resting: bool = False) -> None:
        """Ask about what those have who send little: as ``Submissions.take_little``."""
        queue = self._queue
        for flow in self._new:
            queue.add(flow, flow.finish, len(flow.asked) + len(flow.waiting))
        self._new.clear()
        while queue.has_little if resting else queue.little_first:
            self._serve(queue.pop_little(), LITTLE)

    @property
    def has_room(self) -> bool:
        """True if ``ask_others`` would ask."""
        return self._queue.waiting > 0 and self.asked < ASKED_MAX

    def ask_others(self) -> None:
        """Ask about what the others have, of each a few in turn, as far as there is room."""
        queue = self._queue
        while self.has_room:
            self._serve(queue.pop(), QUANTUM)

    def _serve(self, flow: _Flow, quantum: int) -> None:
        flow.queued = False
        waiting, count = flow.waiting, 0
        while waiting and count < quantum:
            self._ask_about(flow, waiting.popleft())
            count += 1
        flow.finish = self._queue.charge(flow.finish, count, drained=not waiting)
        if waiting:
            flow.queued = True
            self._queue.add(flow, flow.finish, len(flow.asked) + len(waiting))
        self._submit_decided(flow)

    def _ask_about(self, flow: _Flow, waiting: Waiting) -> None:
        submission = waiting.submission
        extra = submission.extra
        assert extra is not None
        asked = _Asked(waiting)
        flow.asked.append(asked)
        if flow.doomed:
            flow.doomed -= 1
            if submission.counter > flow.behind:
                # The store refuses it for its counter: BUSY if it does not, for what was refused
                # was a repeat. Then it comes again, and is asked about.
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
            asked.verdict = int(ErrorCode.KEY_REFUSED)  # it has been removed meanwhile
        elif self._ask(
            INBOX_PREFIX + extra.to,
            submission.sender,
            pack(MayWrite(chain.root)),
            lambda answer: self._answered(flow, asked, answer.code),
        ):
            self.asked += 1
        else:
            asked.verdict = int(ErrorCode.BUSY)

    def _answered(self, flow: _Flow, asked: _Asked, code: int) -> None:
        self.asked -= 1
        asked.verdict = code
        if code:
            flow.behind, flow.doomed = asked.waiting.submission.counter, len(flow.waiting)
        self._submit_decided(flow)

    def _submit_decided(self, flow: _Flow) -> None:
        """Submit what has its verdict, up to the first that has none."""
        while flow.asked and flow.asked[0].verdict != UNDECIDED:
            first = flow.asked.popleft()
            waiting, verdict = first.waiting, first.verdict
            submission = waiting.submission
            assert submission.extra is not None
            decided = submission.extra._replace(verdict=verdict)
            self._submit([Waiting(waiting.port, waiting.tag, submission._replace(extra=decided))])
            self.decided = True
        self._drop_empty(flow)

    def _drop_empty(self, flow: _Flow) -> None:
        if not flow.asked and not flow.waiting and self._flows.get(flow.producer) is flow:
            del self._flows[flow.producer]

    # --- what is not wanted any more ------------------------------------------------------------
    def forget(self, unwanted: Callable[[Waiting], bool]) -> None:
        """Forget some; their answers change nothing then."""
        for flow in list(self._flows.values()):
            flow.asked = deque([asked for asked in flow.asked if not unwanted(asked.waiting)])
            flow.waiting = deque([one for one in flow.waiting if not unwanted(one)])
            flow.doomed = 0
            self._drop_empty(flow)

    def refuse(self, partition: int) -> list[Port]:
        """This is not the home of a partition any more. Return who must be told."""
        if not self._flows:
            return []
        ports: dict[Port, None] = {}
        for flow in self._flows.values():
            for waiting in (*[asked.waiting for asked in flow.asked], *flow.waiting):
                if partition_of(waiting.submission.log) == partition:
                    ports[waiting.port] = None
        self.forget(lambda waiting: partition_of(waiting.submission.log) == partition)
        return list(ports)


def refused(tag: int, code: int, retry_ms: int) -> Refused:
    """Return what is answered to a message that its recipient's home does not take."""
    return Refused(tag, code, retry_ms if code in LATER else 0, "")
