"""Limits the sends in flight to another worker, and queues the others.

A link is a FIFO queue: its content is served in the order of sending. So only as much is put into
it as keeps the home busy. The rest waits here, per sender, and is sent by the same rules as
elsewhere (``fair_queue``). A sender that is alone has no other window than its own, and a light
sender that waits for the answers does not wait here at all.
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
"""Bytes in flight, of all senders: about one read of a link, and several commits."""
QUANTUM: Final = 32
"""Sends of one sender at a time, while others wait: one bus message, and one run for the home."""
QUANTUM_BYTES: Final = 16_384
"""Approximate bytes of one sender at a time: a sixteenth of the window."""
ALONE_BYTES: Final = 1024
"""Additional weight of a send with an ``extra``: it is a bus message of its own, and the home
decides it separately, for about 40 µs at both ends. So only 200 of them are in flight, not 1,300,
which would be 50 ms of work that nobody can overtake."""
LITTLE: Final = 24
"""A sender with at most this many unanswered sends is light: see ``home.submissions``."""
LEAD_MAX: Final = 512
"""Maximum lead of light senders over the others, in sends."""


@final
class Send:
    """An unanswered send."""

    __slots__ = ("flow", "on_its_way", "sender", "size", "submission", "weight")

    def __init__(self, sender: Sender, submission: Submission, size: int) -> None:
        self.sender = sender
        self.submission = submission
        self.size = size
        """The size that it is counted with, in bytes."""
        self.weight = size if submission.extra is None else size + ALONE_BYTES
        """The size that it is counted with while it is in flight."""
        self.flow: Flow | None = None
        """The flow in which it waits or is counted; None: it goes to the own home, or to none yet.
        """
        self.on_its_way = False
        """True once the flow has sent it."""


@final
class Flow:
    """One sender's sends to one home."""

    __slots__ = ("count", "finish", "in_flight", "sender", "waiting", "window")

    def __init__(self, window: Window, sender: Sender) -> None:
        self.window = window
        self.sender = sender
        self.count = 0
        """Number of sends in flight."""
        self.in_flight = 0
        """Their weight in bytes."""
        self.waiting: deque[tuple[int, Send]] = deque()
        """(tag, send). Sends whose ``Send.flow`` is another one are skipped."""
        self.finish = 0.0
        """See ``FairQueue``."""


@final
class Window:
    """The sends in flight to one other worker, and those that wait."""

    __slots__ = ("_new", "_queue", "flows", "in_flight", "port", "window_bytes")

    def __init__(self, port: Port, window_bytes: int) -> None:
        """Create with nothing in flight.

        Args:
            port: to the home.
            window_bytes: see ``WINDOW_BYTES``.
        """
        self.port = port
        self.window_bytes = window_bytes
        self.in_flight = 0
        """Weight in flight, in bytes."""
        self.flows: dict[Sender, Flow] = {}
        """Flows with anything in flight or waiting."""
        self._new: list[Flow] = []
        """Flows that began to wait since the last ``release``."""
        self._queue: FairQueue[Flow] = FairQueue(quantum=QUANTUM, little=LITTLE, lead_max=LEAD_MAX)

    def submit(self, tag: int, sends: list[Send]) -> bool:
        """Send what there is room for of one sender's messages to one log; the rest waits.

        Returns:
            True if some of it waits: ``release`` must be called.
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
        """Return how many of these may be sent now."""
        if flow.waiting or self._new or self._queue.waiting:
            return 0
        if flow.in_flight == self.in_flight:
            return len(sends)  # the only sender
        in_flight = self.in_flight
        for index, send in enumerate(sends):
            if in_flight >= self.window_bytes:
                return index
            in_flight += send.weight
        return len(sends)

    def send(self, tag: int, send: Send) -> None:
        """Send regardless of room: a resend of what this home, or another one, had before."""
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
        """Send what there is room for, of each sender in turn. Return True if some still wait."""
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
            size += send.size
        if run:
            self._go(flow, first, run)
        flow.finish = self._queue.charge(flow.finish, count, drained=not waiting)
        if waiting:
            self._queue.add(flow, flow.finish, count)
        elif not flow.in_flight:  # all of it was dropped
            self.flows.pop(flow.sender, None)


def forget_run(sends: list[Send]) -> None:
    """The same as ``forget`` for several; consecutive sends of one flow are handled together."""
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
    """Note that sends of a flow, with this total weight, are no longer in flight."""
    flow.count -= count
    flow.in_flight -= size
    flow.window.in_flight -= size
    if not flow.in_flight and not flow.waiting:
        flow.window.flows.pop(flow.sender, None)


def forget(send: Send) -> None:
    """Remove a send that is answered or about to be resent."""
    forget_run([send])
