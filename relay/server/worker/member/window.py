"""The window of what is in flight to another worker, and the queue of those who wait for it.

A link is a queue that nobody passes: what is in it is served in the order in which it was sent. So
no more is put into it than keeps the home busy, and the rest waits here, by sender, and goes by the
same rules as everything that many wait for (``fair_queue``). One who sends alone has no window but
its own, and whoever has sent little, and waits for the answers, does not wait here at all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from relay.bus.messages import TAG_STEP
from relay.server.worker.fair_queue import FairQueue

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission
    from relay.server.worker.member.sender import Sender

WINDOW_BYTES: Final = 256 * 1024
"""On its way, of all senders: about what one read of a link takes, and some commits' worth."""
QUANTUM: Final = 32
"""Sends of one sender at a time, while others wait: one message of the bus, and a run for the home.
"""
QUANTUM_BYTES: Final = 16_384
"""Of one sender at a time, about: a sixteenth of the window."""
ALONE_BYTES: Final = 1024
"""What a send counts besides its size if it has an ``extra``: it is a message of the bus by itself,
and the home decides on it by itself, for some 40 us at both ends together. Two hundred are on their
way then, and not thirteen hundred: 50 ms of what nobody passes."""
LITTLE: Final = 24
"""Who has so many at most that are not answered goes first: see ``home.submissions``."""
LEAD_MAX: Final = 512
"""By how much those may be ahead of the others, in sends."""


@final
class Send:
    """A send that is not answered."""

    __slots__ = ("flow", "on_its_way", "sender", "size", "submission", "weight")

    def __init__(self, sender: Sender, submission: Submission, size: int) -> None:
        self.sender = sender
        self.submission = submission
        self.size = size
        """What it is counted as, in bytes."""
        self.weight = size if submission.extra is None else size + ALONE_BYTES
        """What it is counted as on its way."""
        self.flow: Flow | None = None
        """Where it waits, or is counted; None: it goes to the own home, or to none yet."""
        self.on_its_way = False
        """True once the flow has let it go."""


@final
class Flow:
    """What one sender has for one home."""

    __slots__ = ("count", "finish", "in_flight", "sender", "waiting", "window")

    def __init__(self, window: Window, sender: Sender) -> None:
        self.window = window
        self.sender = sender
        self.count = 0
        """Sends on their way."""
        self.in_flight = 0
        """Their weights."""
        self.waiting: deque[tuple[int, Send]] = deque()
        """(tag, send). Those that have left ``Send.flow`` are not sent."""
        self.finish = 0.0
        """See ``FairQueue``."""


@final
class Window:
    """See the module's docstring."""

    __slots__ = ("_new", "_queue", "flows", "in_flight", "port", "window_bytes")

    def __init__(self, port: Port, window_bytes: int) -> None:
        """Begin with nothing on its way.

        Args:
            port: to the home.
            window_bytes: see ``WINDOW_BYTES``.
        """
        self.port = port
        self.window_bytes = window_bytes
        self.in_flight = 0
        """Weights on their way."""
        self.flows: dict[Sender, Flow] = {}
        """Of those who have anything on its way, or waiting."""
        self._new: list[Flow] = []
        """Flows that have begun to wait since the last ``release``."""
        self._queue: FairQueue[Flow] = FairQueue(quantum=QUANTUM, little=LITTLE, lead_max=LEAD_MAX)

    def submit(self, tag: int, sends: list[Send]) -> bool:
        """Send what one sender has for one log now, as far as there is room; the rest waits.

        Returns:
            True if some waits: ``release`` is to be called.
        """
        sender = sends[0].sender
        flow = self.flows.get(sender)
        if flow is None:
            flow = self.flows[sender] = Flow(self, sender)
        for send in sends:
            send.flow = flow
        room = self._room(flow, sends)
        if room:
            self._go(flow, tag, sends[:room])
        if room == len(sends):
            return False
        if not flow.waiting:
            self._new.append(flow)
        for index in range(room, len(sends)):
            flow.waiting.append((tag + index * TAG_STEP, sends[index]))
        return True

    def _room(self, flow: Flow, sends: list[Send]) -> int:
        """Return how many of these may go now."""
        if flow.waiting or self._new or self._queue.waiting:
            return 0
        if flow.in_flight == self.in_flight:
            return len(sends)  # who sends alone
        in_flight = self.in_flight
        for index, send in enumerate(sends):
            if in_flight >= self.window_bytes:
                return index
            in_flight += send.weight
        return len(sends)

    def send(self, tag: int, send: Send) -> None:
        """Send whether there is room or not: what the home has had, or another one, sent anew."""
        flow = send.flow = self.flows.get(send.sender) or Flow(self, send.sender)
        self.flows[send.sender] = flow
        self._go(flow, tag, [send])

    def _go(self, flow: Flow, tag: int, sends: list[Send]) -> None:
        size = 0
        for send in sends:
            send.on_its_way = True
            size += send.weight
        flow.count += len(sends)
        flow.in_flight += size
        self.in_flight += size
        self.port.submit(tag, [send.submission for send in sends])

    def release(self) -> bool:
        """Send what there is room for, of each sender in turn; return True if some still wait."""
        queue = self._queue
        for flow in self._new:
            queue.add(flow, flow.finish, flow.count + len(flow.waiting))
        self._new.clear()
        while queue.waiting and (queue.little_first or self.in_flight < self.window_bytes):
            self._serve(queue.pop())
        return queue.waiting > 0

    def _serve(self, flow: Flow) -> None:
        waiting = flow.waiting
        count = first = size = 0
        run: list[Send] = []
        while waiting and count < QUANTUM and size < QUANTUM_BYTES:
            tag, send = waiting.popleft()
            if send.flow is not flow:
                continue
            if run and (
                tag != first + len(run) * TAG_STEP or send.submission.log != run[0].submission.log
            ):
                self._go(flow, first, run)
                run = []
            if not run:
                first = tag
            run.append(send)
            count += 1
            size += send.weight
        if run:
            self._go(flow, first, run)
        flow.finish = self._queue.charge(flow.finish, count, drained=not waiting)
        if waiting:
            self._queue.add(flow, flow.finish, count)
        elif not flow.in_flight:  # all of it was forgotten
            self.flows.pop(flow.sender, None)


def forget_run(sends: list[Send]) -> None:
    """As ``forget``, of several: those of one flow that follow one another mostly go as one."""
    flow: Flow | None = None
    count = size = 0
    for send in sends:
        if send.flow is not flow:
            if flow is not None:
                _landed(flow, count, size)
            flow, count, size = send.flow, 0, 0
        send.flow = None
        if send.on_its_way:
            send.on_its_way = False
            count += 1
            size += send.weight
    if flow is not None:
        _landed(flow, count, size)


def _landed(flow: Flow, count: int, size: int) -> None:
    """So many sends of a flow, of this weight together, are not on their way any more."""
    flow.count -= count
    flow.in_flight -= size
    flow.window.in_flight -= size
    if not flow.in_flight and not flow.waiting:
        flow.window.flows.pop(flow.sender, None)


def forget(send: Send) -> None:
    """It is answered, or to be sent anew: it neither waits nor is on its way any more."""
    forget_run([send])
