"""Limits the sends in flight to another worker, and queues the others.

A link is a FIFO queue: its content is served in the order of sending. So only as much is put into
it as keeps the home busy. The rest waits here, per sender, and is sent by the same rules as
elsewhere (``fair_queue``), by bytes. A sender that is alone has no other window than its own. Light
senders do not wait for a window that heavy ones have filled: what they send goes past the others'
at the home. They have a window of their own, for the same reason as the others.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from relay.bus.messages import TAG_STEP
from relay.server.worker.fair_queue import FairQueue
from relay.server.worker.member.sender import OVERHEAD_BYTES

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.chat.entries import Submission
    from relay.server.worker.member.sender import Sender

WINDOW_BYTES: Final = 256 * 1024
"""Bytes in flight, of all heavy senders, and again of all light ones: about one read of a link, and
several commits."""
QUANTUM: Final = 32
"""Sends of one sender at a time, while others wait: one bus message, and one run for the home."""
QUANTUM_BYTES: Final = 16_384
"""Approximate bytes of one sender at a time: a sixteenth of the window."""
SEND_BYTES: Final = QUANTUM_BYTES // QUANTUM
"""What a send counts as in the queue, at least: a small one costs its home as much work."""
ALONE_BYTES: Final = 1024
"""Additional weight of a send with an ``extra``: it is a bus message of its own, and the home
decides it separately, for about 40 µs at both ends. So only 200 of them are in flight, not 1,300,
which would be 50 ms of work that nobody can overtake."""
LIGHT_MAX: Final = 24
"""A sender with at most this many unanswered sends is light: see ``home.submissions``."""
LIGHT_BYTES: Final = LIGHT_MAX * SEND_BYTES
"""And they have at most this many bytes, unless it is a single one. So what a light sender has
leaves in one piece."""

_NOTHING: Final[deque[Run]] = deque()
"""No runs. Shared, because most flows never wait; never modified."""


@final
class Run:
    """What one sender offered at once for one log, until all of it is answered."""

    __slots__ = ("first", "flow", "left", "on_its_way", "sender", "size", "submissions")

    def __init__(
        self, sender: Sender, first: int, submissions: list[Submission | None], size: int
    ) -> None:
        self.sender = sender
        self.first = first
        """Tag of the first; those of the others are ``TAG_STEP`` apart."""
        self.submissions = submissions
        """None in place of each answered one."""
        self.left = len(submissions)
        """Number of unanswered ones."""
        self.size = size
        """What they are counted with, in bytes (``size_of``)."""
        self.flow: Flow | None = None
        """The flow in which it waits or is counted; None: it goes to the own home, or to none yet.
        """
        self.on_its_way = 0
        """How many, from the first on, the flow has sent."""

    def row(self, start: int, end: int) -> list[Submission]:
        """Return those from ``start`` on, up to ``end`` or to the first answered one."""
        some = self.submissions[start:end]
        if None in some:
            del some[some.index(None) :]
        return some  # type: ignore[return-value] # ``cast`` would be a call

    def pieces(self, start: int, end: int) -> list[tuple[int, list[Submission]]]:
        """Return the unanswered ones of a part, in sequences: (index of the first, these)."""
        some = self.row(start, end)
        if len(some) == min(end, len(self.submissions)) - start:
            return [(start, some)] if some else []
        pieces: list[tuple[int, list[Submission]]] = []
        ended = True
        for index, submission in enumerate(self.submissions[start:end], start):
            if submission is None:
                ended = True
            elif ended:
                pieces.append((index, [submission]))
                ended = False
            else:
                pieces[-1][1].append(submission)
        return pieces

    def answered(self, start: int, end: int) -> list[Submission]:
        """Those from ``start`` on, up to ``end`` or to the first answered one, are answered now, or
        refused. Return them.
        """
        if not start and end >= self.left == len(self.submissions):  # the usual case: all of it
            sends: list[Submission] = self.submissions  # type: ignore[assignment]
            size = self.size
        else:
            sends = self.row(start, end)
            size = size_of(sends)
        count = len(sends)
        self.left -= count
        self.size -= size
        if sends and self.flow is not None:
            self.flow.landed(self, start, sends, size)
        if self.left:
            self.submissions[start : start + count] = [None] * count
        else:
            self.flow = None
        return sends


@final
class Flow:
    """One sender's sends to one home."""

    __slots__ = (
        "count", "finish", "in_flight", "light", "queued", "queued_bytes", "sender", "waiting",
        "window",
    )  # fmt: skip

    def __init__(self, window: Window, sender: Sender) -> None:
        self.window = window
        self.sender = sender
        self.count = 0
        """Number of sends in flight."""
        self.in_flight = 0
        """Their weight in bytes."""
        self.light = 0
        """How much of it was sent as a light sender's."""
        self.waiting = _NOTHING
        """Runs with waiting sends. Runs whose ``Run.flow`` is another one are skipped."""
        self.queued = 0
        """Number of waiting sends."""
        self.queued_bytes = 0
        """Their weight."""
        self.finish = 0.0
        """See ``FairQueue``."""

    def landed(self, run: Run, start: int, sends: list[Submission], size: int) -> None:
        """Stop counting some in a row of a run of this flow, of this size: as waiting, or as in
        flight.
        """
        window, count = self.window, len(sends)
        weight = size if sends[0].extra is None else _weight(sends, size)
        waited = start + count - run.on_its_way
        if waited > 0:
            waiting = sends[max(count - waited, 0) :]
            waited_bytes = _weight(waiting, size_of(waiting))
            self.queued -= len(waiting)
            self.queued_bytes -= waited_bytes
            count -= len(waiting)
            weight -= waited_bytes
        self.count -= count
        self.in_flight -= weight
        window.in_flight -= weight
        if self.light:
            light = min(self.light, weight)
            self.light -= light
            window.light_in_flight -= light
        if not self.in_flight and not self.waiting:
            window.flows.pop(self.sender, None)

    @property
    def units(self) -> int:
        """All that is not answered, in units of the queue."""
        count, weight = self.count + self.queued, self.in_flight + self.queued_bytes
        return min(_units(count, weight), LIGHT_BYTES) if count == 1 else _units(count, weight)


@final
class Window:
    """The sends in flight to one other worker, and those that wait."""

    __slots__ = (
        "_new", "_queue", "flows", "in_flight", "light_in_flight", "port", "window_bytes",
    )  # fmt: skip

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
        self.light_in_flight = 0
        """How much of it was sent as light senders', who had to wait here."""
        self.flows: dict[Sender, Flow] = {}
        """Flows with anything in flight or waiting."""
        self._new: list[Flow] = []
        """Flows that began to wait since the last ``release``."""
        self._queue: FairQueue[Flow] = FairQueue(
            quantum=QUANTUM_BYTES, light_max=LIGHT_BYTES, lead_max=WINDOW_BYTES
        )

    def submit(self, run: Run, sends: list[Submission]) -> bool:
        """Send what there is room for of one sender's messages to one log; the rest waits.

        Args:
            run: a new one.
            sends: all of it.

        Returns:
            True if some of it waits: ``release`` must be called.
        """
        sender = run.sender
        flow = self.flows.get(sender)
        if flow is None:
            flow = self.flows[sender] = Flow(self, sender)
        run.flow = flow
        count, weight = len(sends), run.size
        if sends[0].extra is not None:
            weight = _weight(sends, weight)
        nobody_waits = not (flow.waiting or self._new or self._queue.waiting)
        if nobody_waits and flow.in_flight == self.in_flight:  # the only sender
            room = count
        else:
            room = self._room(sends) if nobody_waits else 0
        run.on_its_way = room
        if room == count:
            flow.count += count
            flow.in_flight += weight
            self.in_flight += weight
            self.port.submit(run.first, sends)
            return False
        if room:
            some = sends[:room]
            going = _weight(some, size_of(some))
            self._go(flow, run.first, some, going)
            weight -= going
        if flow.waiting is _NOTHING:
            flow.waiting = deque()
        if not flow.waiting:
            self._new.append(flow)
        flow.waiting.append(run)
        flow.queued += count - room
        flow.queued_bytes += weight
        return True

    def _room(self, sends: list[Submission]) -> int:
        """Return for how many of these there is room."""
        in_flight = self.in_flight
        for index, send in enumerate(sends):
            if in_flight >= self.window_bytes:
                return index
            in_flight += _weight_of(send)
        return len(sends)

    def send_anew(self, run: Run) -> None:
        """Send regardless of room: a resend of what this home, or another one, had before."""
        forget(run)
        flow = run.flow = self.flows.get(run.sender) or Flow(self, run.sender)
        self.flows[run.sender] = flow
        for start, sends in run.pieces(0, len(run.submissions)):
            tag = run.first + start * TAG_STEP
            self._go(flow, tag, sends, _weight(sends, size_of(sends)))
        run.on_its_way = len(run.submissions)

    def _go(self, flow: Flow, tag: int, sends: list[Submission], weight: int) -> None:
        flow.count += len(sends)
        flow.in_flight += weight
        self.in_flight += weight
        self.port.submit(tag, sends)

    def release(self) -> bool:
        """Send what there is room for, of each sender in turn. Return True if some still wait."""
        queue = self._queue
        for flow in self._new:
            queue.add(flow, flow.finish, flow.units)
        self._new.clear()
        while queue.waiting:
            light = queue.light_first
            of_others = self.in_flight - self.light_in_flight
            if (self.light_in_flight if light else of_others) >= self.window_bytes:
                break  # the others are next once these have their half
            flow = queue.pop()
            before = flow.in_flight
            self._serve(flow)
            if light:
                sent = flow.in_flight - before
                flow.light += sent
                self.light_in_flight += sent
        return queue.waiting > 0

    def _serve(self, flow: Flow) -> None:
        waiting = flow.waiting
        count = first = size = weight = going_weight = 0
        going: list[Submission] = []
        """Consecutive sends to one log, from ``first`` on, possibly of several runs."""
        while waiting and count < QUANTUM and size < QUANTUM_BYTES:
            run = waiting[0]
            start = run.on_its_way
            if run.flow is not flow or start >= len(run.submissions):
                waiting.popleft()
                continue
            end = start
            for submission in run.submissions[start : start + QUANTUM - count]:
                if size >= QUANTUM_BYTES:
                    break
                end += 1
                if submission is not None:
                    size += len(submission.body) + OVERHEAD_BYTES
            for at, sends in run.pieces(start, end):
                tag = run.first + at * TAG_STEP
                if going and (
                    tag != first + len(going) * TAG_STEP
                    or sends[0].log != going[0].log
                    or sends[0].extra is not None
                    or going[0].extra is not None
                ):
                    self._go(flow, first, going, going_weight)
                    going, going_weight = [], 0
                if not going:
                    first = tag
                going += sends
                going_weight += (weight_here := _weight(sends, size_of(sends)))
                count += len(sends)
                weight += weight_here
                flow.queued -= len(sends)
            run.on_its_way = end
            if end == len(run.submissions):
                waiting.popleft()
        if going:
            self._go(flow, first, going, going_weight)
        flow.queued_bytes -= weight
        units = _units(count, weight)
        flow.finish = self._queue.charge(flow, flow.finish, units, drained=not waiting)
        if waiting:
            self._queue.add(flow, flow.finish, units)
        elif not flow.in_flight:  # all of it was dropped
            self.flows.pop(flow.sender, None)


def size_of(sends: list[Submission]) -> int:
    """Return the size that sends are counted with, in bytes."""
    if len(sends) == 1:  # the common case: one message
        return len(sends[0].body) + OVERHEAD_BYTES
    return sum([len(send.body) for send in sends]) + len(sends) * OVERHEAD_BYTES


def _weight_of(send: Submission) -> int:
    """Return the size that a send is counted with while it is in flight."""
    size = len(send.body) + OVERHEAD_BYTES
    return size if send.extra is None else size + ALONE_BYTES


def _weight(sends: list[Submission], size: int) -> int:
    """Return the weight of some of one run, of this size: all have an ``extra``, or none has."""
    return size if not sends or sends[0].extra is None else size + len(sends) * ALONE_BYTES


def _units(count: int, weight: int) -> int:
    """Return what some sends count as in the queue."""
    return max(weight, count * SEND_BYTES)


def forget(run: Run) -> None:
    """Prepare a run for a resend: it neither waits nor is in flight any more."""
    flow = run.flow
    if flow is not None:
        for start, sends in run.pieces(0, len(run.submissions)):
            flow.landed(run, start, sends, size_of(sends))
        run.flow = None
    run.on_its_way = 0
