"""A process of subscribers: most count, a sample decrypts and checks everything.

One epoll loop reads raw sockets. The sample keeps its bytes with the time of their arrival and
decodes them after the load, so that checking costs the machine nothing while it is measured; one of
it, the pacer, decodes at once and says in shared memory how far it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable
from ctypes import c_uint64
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import RawValue
from typing import Final, Self, TypeAlias

from benchmarks.load import payload
from benchmarks.load.spawned import Spawned
from benchmarks.load.subscribers import Subscriber
from benchmarks.load.tally import Closed, Tally
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays

Connect: TypeAlias = Callable[[int], Subscriber]
"""Makes subscriber number n, subscribed, at a frame's boundary. Picklable: it runs elsewhere."""
CONNECT_S: Final = 240.0
READ_BYTES: Final = 1 << 20
QUIET_S: Final = 0.05
"""Without a byte for so long, nothing is on its way."""
REFRESH_S: Final = 10.0
"""How old a sign of life may be at the start of a round; a relay pings after 30 s of silence."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Order: the next messages are numbered from here."""

    first: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Order: wait until the sample, or everybody, has got this message. Answer: a Report."""

    last: int
    everybody: bool
    deadline_s: float


@dataclass(slots=True)
class Report:
    """What the swarm has received."""

    missing: int
    """Subscribers that have not got it all (of the sample, or of all)."""
    checked: int
    """Messages that were decrypted and whose number, order and content were right."""
    done_ns: int
    """``monotonic_ns`` of the last read that mattered."""
    size: int
    """Bytes received by all since Begin."""
    frames: int
    """Frames received by the counting subscribers since Begin."""
    behind: int
    """How often a subscriber of the sample was told that it reads too slowly."""
    delays: bytes = b""
    wrong: list[str] = field(default_factory=list)
    """What the sample found to be wrong; empty for a correct server."""


class SwarmError(RuntimeError):
    """The swarm could not connect, or a subscriber was dropped."""


class _Counting:
    """A subscriber that only counts."""

    def __init__(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        self.tally = Tally(subscriber.socket, subscriber.framing)
        self.read = self.tally.read
        self._begun = (0, 0)

    def begin(self, first: int) -> None:
        self._begun = (self.tally.size, self.tally.frames)

    @property
    def size(self) -> int:
        return self.tally.size - self._begun[0]

    @property
    def frames(self) -> int:
        return self.tally.frames - self._begun[1]

    def has(self, last: int) -> bool:
        got = self.subscriber.received(self.tally)
        return got is not None and got >= last


class _Checking:
    """A subscriber that decrypts, and checks number, order and content of every message."""

    def __init__(self, subscriber: Subscriber, progress: Callable[[int], None] | None) -> None:
        self.subscriber = subscriber
        self._socket = subscriber.socket
        self._socket.setblocking(False)
        self._progress = progress
        self._kept: list[tuple[int, bytes]] = []
        self._begun_behind = 0
        self.next = 0
        self.size = 0
        self.checked = 0
        self.done_ns = 0
        self.wrong: list[str] = []
        self.delays = Delays()

    def begin(self, first: int) -> None:
        self.decode()
        self.next = first
        self.size = self.checked = 0
        self._begun_behind = self.subscriber.behind
        self.wrong.clear()
        self.delays = Delays()

    @property
    def behind(self) -> int:
        return self.subscriber.behind - self._begun_behind

    def read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise Closed("the server closed a subscriber's connection")
        self.size += len(data)
        self._kept.append((time.monotonic_ns(), data))
        if self._progress is not None:
            self.decode()
            self._progress(self.next)

    def has(self, last: int) -> bool:
        self.decode()
        return self.next > last

    def decode(self) -> None:
        kept, self._kept = self._kept, []
        for arrived_ns, data in kept:
            try:
                for body in self.subscriber.decode(data):
                    self._check(body, arrived_ns)
            except ValueError as error:
                self.wrong.append(str(error))

    def _check(self, body: bytes, arrived_ns: int) -> None:
        number, intended_ns, _ = payload.check(body)
        if number != self.next:
            self.wrong.append(f"message {number} where {self.next} was due")
        self.next = number + 1
        self.checked += 1
        self.done_ns = arrived_ns
        self.delays.record_ns(arrived_ns - intended_ns)


class _Process:
    """The swarm inside its own process."""

    def __init__(self, pipe: Pipe, progress: c_uint64) -> None:
        self._pipe = pipe
        self._progress = progress
        self._counting: list[_Counting] = []
        self._checking: list[_Checking] = []
        self._readers: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll()
        self._refreshed = time.monotonic()

    def run(self, connect: Connect, count: int, sample: int) -> None:
        """Connect, then obey until the pipe ends."""
        checking = _spread(count, sample)
        for index in range(count):
            subscriber = connect(index)
            if index in checking:
                pacer = index == count - 1
                self._checking.append(_Checking(subscriber, self._publish if pacer else None))
            else:
                self._counting.append(_Counting(subscriber))
        for listener in self._listeners():
            fileno = listener.subscriber.socket.fileno()
            self._readers[fileno] = listener.read
            self._epoll.register(fileno, select.EPOLLIN)
        self._epoll.register(self._pipe.fileno(), select.EPOLLIN)
        self._readers[self._pipe.fileno()] = _nothing
        self._pipe.send("connected")
        while True:
            self._read_until(self._pipe.poll, float("inf"))
            try:
                order = self._pipe.recv()
            except EOFError:
                return
            if isinstance(order, Begin):
                self._begin(order)
            else:
                self._pipe.send(self._settle(order))

    def _listeners(self) -> list[_Counting | _Checking]:
        return [*self._counting, *self._checking]

    def _publish(self, next_number: int) -> None:
        self._progress.value = next_number

    def _read_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        readers = self._readers
        poll = self._epoll.poll
        while not condition():
            left = deadline - time.monotonic()
            if left < 0:
                return False
            for fileno, _ in poll(min(left, 1.0)):
                readers[fileno]()
        return True

    def _begin(self, order: Begin) -> None:
        if time.monotonic() - self._refreshed > REFRESH_S:
            self._refresh()
        for listener in self._listeners():
            listener.begin(order.first)
        self._publish(order.first)
        self._pipe.send("begun")

    def _refresh(self) -> None:
        """Send keepalives, and take the answers before anything is counted."""
        self._refreshed = time.monotonic()
        before = [one.tally.frames for one in self._counting]
        answered = [one.subscriber.refresh() for one in self._counting]
        for one in self._checking:
            one.subscriber.refresh()

        def all_answered() -> bool:
            return all(
                one.tally.frames > had
                for one, had, answer in zip(self._counting, before, answered, strict=True)
                if answer
            )

        self._read_until(all_answered, time.monotonic() + 10)

    def _settle(self, order: Settle) -> Report:
        pending: list[_Counting | _Checking] = [*self._checking]
        if order.everybody:
            pending += self._counting

        def settled() -> bool:
            pending[:] = [one for one in pending if not one.has(order.last)]
            return not pending

        deadline = time.monotonic() + order.deadline_s
        # First what is on its way: the sample decodes for a second or more, and what came
        # meanwhile would look late.
        while time.monotonic() < deadline and (ready := self._epoll.poll(QUIET_S)):
            for fileno, _ in ready:
                self._readers[fileno]()
        self._read_until(settled, deadline)
        delays = Delays()
        for one in self._checking:
            delays.add(one.delays.encode())
        return Report(
            missing=len(pending),
            checked=sum(one.checked for one in self._checking),
            done_ns=max(one.done_ns for one in self._checking),
            size=sum(one.size for one in self._listeners()),
            frames=sum(one.frames for one in self._counting),
            behind=sum(one.behind for one in self._checking),
            delays=delays.encode(),
            wrong=[text for one in self._checking for text in one.wrong][:20],
        )


def _spread(count: int, sample: int) -> set[int]:
    """Return which of ``count`` check: evenly spread, the last one always (it is the pacer)."""
    sample = min(sample, count)
    return {count - 1 - index * count // sample for index in range(sample)}


def _nothing() -> None:
    pass


def _main(
    pipe: Pipe, progress: c_uint64, connect: Connect, count: int, sample: int, niceness: int
) -> None:
    os.sched_setaffinity(0, machine.ALL_CORES if niceness else machine.LOAD_CORES)
    os.nice(niceness)
    try:
        _Process(pipe, progress).run(connect, count, sample)
    except (OSError, ValueError) as error:
        with contextlib.suppress(BrokenPipeError):  # the owner has gone, and the server after it
            pipe.send(SwarmError(f"{type(error).__name__}: {error}"))


class Swarm(Spawned):
    """The swarm as its owner sees it. A context manager: connected inside, gone after it."""

    def __init__(self, connect: Connect, count: int, *, sample: int, niceness: int = 0) -> None:
        """Start connecting.

        Args:
            connect: makes one subscriber; picklable.
            count: how many.
            sample: how many of them decrypt and check everything.
            niceness: above 0 it runs on any core, but only when the server does not want it.
        """
        self.count = count
        self._progress = RawValue(c_uint64, 0)
        super().__init__(_main, self._progress, connect, count, sample, niceness)

    def __enter__(self) -> Self:
        """Wait until all are connected."""
        self._answer(CONNECT_S)
        return self

    @property
    def progress(self) -> int:
        """The number of the message that the pacer awaits."""
        return self._progress.value

    def begin(self, first: int) -> None:
        """The next messages will be numbered from ``first``."""
        self._pipe.send(Begin(first))
        self._answer(30)

    def settle(self, last: int, *, everybody: bool, deadline_s: float) -> Report:
        """Wait until the sample, or everybody, has got message ``last``."""
        self._pipe.send(Settle(last, everybody, deadline_s))
        report = self._answer(deadline_s + 60)
        assert isinstance(report, Report)
        return report

    def _answer(self, deadline_s: float) -> object:
        if not self._pipe.poll(deadline_s):
            raise SwarmError(f"the swarm said nothing for {deadline_s:.0f} s")
        try:
            answer: object = self._pipe.recv()
        except EOFError:
            raise SwarmError("the swarm ended") from None
        if isinstance(answer, SwarmError):
            raise answer
        return answer
