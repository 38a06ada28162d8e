"""A process of clients that connect at once or one after another, lose their connections and
resume.

The owner gives orders over a pipe; between orders the clients read what arrives, and those that
have lost their connection reconnect after the client library's own back-off.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Final, Self, TypeAlias

from benchmarks.load.returner import Returner
from benchmarks.load.spawned import Spawned
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays

LOOK_S: Final = 0.01
"""How often to look who is to connect again."""
COUNT_S: Final = 0.25
"""How often what has come for those who only count is read: nothing waits for that."""
PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The clients of the crowd. Picklable."""

    address: tuple[str, int]
    log: str
    names: tuple[str, ...]
    """One client each."""
    counting_after_live: bool = False
    """All but each 20th client only count once they are live."""
    tickets: bool = True
    """Those who come back resume by ticket where they can."""
    niceness: int = 0
    """Above 0 where others measure latency on the same core: the crowd must not slow them."""


@dataclass(frozen=True, slots=True)
class Arrive:
    """Order: clients that are not connected connect, ``every_s`` apart. Answer: Arrived.

    With ``lost`` > 0 no client is told to connect: so many lose their connection by themselves.
    """

    every_s: float = 0.0
    first: int = 0
    until: int | None = None
    """Clients number first to (not including) this one; None: all."""
    since_ns: int = 0
    """Delays count from here; 0: each from when it began to connect."""
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """Order: all drop their connections. Answer: Arrived (of nobody)."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Order: all create the ephemeral keys of their next connection. Answer: Arrived (of nobody).

    So that a storm measures the server, not the clients' own keys (``benchmarks.load.prepared``).
    """


@dataclass(frozen=True, slots=True)
class Settle:
    """Order: wait until all have got this message. Answer: Arrived, missing counted."""

    last: int
    deadline_s: float


Order: TypeAlias = Arrive | Leave | Prepare | Settle


@dataclass(slots=True)
class Arrived:
    """The crowd's answer."""

    live: int
    missing: int = 0
    losses: int = 0
    """Connections lost since the crowd began; refused handshakes are among them."""
    checked: int = 0
    """Messages decrypted and checked since the crowd began, all clients together."""
    behind: int = 0
    resumed: int = 0
    """Handshakes that a ticket has shortened, since the crowd began."""
    elapsed_s: float = 0.0
    """From the order (or since_ns) to the last one's Live."""
    delays: bytes = b""
    """Encoded Delays: until live, each client."""
    wrong: list[str] = field(default_factory=list)


def names(count: int, prefix: str = "returner") -> tuple[str, ...]:
    """Return so many names."""
    return tuple(f"{prefix}{number}" for number in range(count))


class CrowdError(RuntimeError):
    """The crowd has failed, or does not answer."""


class _Process:
    """The crowd inside its own process."""

    def __init__(self, pipe: Pipe, plan: Plan) -> None:
        self._pipe = pipe
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {pipe.fileno(): _nothing}
        self._epoll.register(pipe.fileno(), select.EPOLLIN)
        self._counting = select.epoll()
        """The sockets of those who only count."""
        self._count_at = 0.0
        self._again: list[tuple[float, Returner]] = []
        self._everybody = [
            Returner(
                plan.address,
                name,
                plan.log,
                counts=plan.counting_after_live and index % 20 != 0,
                changed=self._changed,
                counting=self._count,
                tickets=plan.tickets,
            )
            for index, name in enumerate(plan.names)
        ]
        self._away = set(self._everybody)
        """Those who are to have no connection."""
        self._revived: list[Returner] = []
        """Those who have become live, in order, since the last order."""

    def run(self) -> None:
        """Obey until the pipe ends."""
        while True:
            self._read_until(self._pipe.poll, float("inf"))
            try:
                order = self._pipe.recv()
            except EOFError:
                return
            self._pipe.send(self._obey(order))

    def _obey(self, order: Order) -> Arrived:
        began_ns = time.monotonic_ns()
        deadline = time.monotonic() + PATIENCE_S
        if isinstance(order, Arrive):
            return self._arrive(order, began_ns, deadline)
        if isinstance(order, Leave):
            for one in self._everybody:
                if one not in self._away:
                    self._forget(one)
                    one.drop()
            self._away = set(self._everybody)
            return self._answer()
        if isinstance(order, Prepare):
            for one in self._everybody:
                one.prepare()
                self._read_until(_never, time.monotonic())
            return self._answer()
        pending = [one for one in self._everybody if one not in self._away]

        def settled() -> bool:
            pending[:] = [one for one in pending if not one.has(order.last)]
            return not pending

        self._read_until(settled, time.monotonic() + order.deadline_s)
        return self._answer(missing=len(pending))

    def _arrive(self, order: Arrive, began_ns: int, deadline: float) -> Arrived:
        if not order.lost:
            self._revived.clear()
        due = time.monotonic()
        coming = [] if order.lost else self._everybody[order.first : order.until]
        for one in coming:
            if one in self._away:
                self._connect(one)
                if order.every_s:
                    due += order.every_s
                    self._read_until(_never, due)
        wanted = len(coming) or order.lost

        def done() -> bool:
            return len(self._revived) >= wanted and all(
                one.live for one in self._everybody if one not in self._away
            )

        self._read_until(done, deadline)
        delays = Delays()
        last_ns = since_ns = order.since_ns or began_ns
        for one in self._revived:
            delays.record_ns(one.live_ns - (order.since_ns or one.began_ns))
            last_ns = max(last_ns, one.live_ns)
        answer = self._answer()
        answer.missing = 0 if done() else wanted - len(self._revived)
        answer.elapsed_s = (last_ns - since_ns) / 1e9
        answer.delays = delays.encode()
        self._revived = []
        return answer

    def _answer(self, missing: int = 0) -> Arrived:
        everybody = self._everybody
        return Arrived(
            live=sum(one.live for one in everybody),
            missing=missing,
            losses=sum(one.losses for one in everybody),
            checked=sum(one.checked for one in everybody),
            behind=sum(one.behind for one in everybody),
            resumed=sum(one.resumed for one in everybody),
            wrong=[text for one in everybody for text in one.wrong][:20],
        )

    def _connect(self, one: Returner) -> None:
        self._away.discard(one)
        one.connect()
        fileno = one.socket.fileno()
        self._readers[fileno] = one.read
        self._epoll.register(fileno, select.EPOLLIN)

    def _forget(self, one: Returner) -> None:
        self._readers.pop(one.socket.fileno(), None)

    def _count(self, one: Returner) -> None:
        self._epoll.unregister(one.socket.fileno())
        self._counting.register(one.socket.fileno(), select.EPOLLIN)

    def _changed(self, one: Returner) -> None:
        if one.live:
            self._revived.append(one)
        else:
            # Its descriptor is closed, and so no longer watched; the number may come again.
            now = time.monotonic()
            self._again.append((now + one.backoff.next_delay(now), one))

    def _read_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        poll = self._epoll.poll
        while True:
            if self._again:
                self._connect_again()
            if condition():
                return True
            now = time.monotonic()
            if now >= self._count_at:
                self._read_counting()
                self._count_at = now + COUNT_S
            left = deadline - now
            if left < 0:
                return False
            for fileno, _ in poll(min(left, LOOK_S if self._again else COUNT_S)):
                self._readers[fileno]()

    def _read_counting(self) -> None:
        while ready := self._counting.poll(0):
            for fileno, _ in ready:
                self._readers[fileno]()

    def _connect_again(self) -> None:
        now = time.monotonic()
        due = [one for when, one in self._again if when <= now]
        self._again = [(when, one) for when, one in self._again if when > now]
        for one in due:
            if one not in self._away:
                self._connect(one)


def _nothing() -> None:
    pass


def _never() -> bool:
    return False


def _main(pipe: Pipe, plan: Plan) -> None:
    os.sched_setaffinity(0, machine.LOAD_CORES)
    os.nice(plan.niceness)
    try:
        _Process(pipe, plan).run()
    except (OSError, ValueError) as error:
        pipe.send(CrowdError(f"{type(error).__name__}: {error}"))


class Crowd(Spawned):
    """The crowd as its owner sees it. A context manager: nobody is connected at first."""

    def __init__(self, plan: Plan) -> None:
        """Start the process."""
        super().__init__(_main, plan)

    def __enter__(self) -> Self:
        """Nothing to wait for."""
        return self

    def order(self, order: Order) -> None:
        """Give an order; ``answer`` waits for its end."""
        self._pipe.send(order)

    @property
    def answered(self) -> bool:
        """True when ``answer`` will not wait."""
        return self._pipe.poll()

    def answer(self) -> Arrived:
        """Wait until the order is carried out.

        Raises:
            CrowdError: the process has ended, or does not answer.
        """
        if not self._pipe.poll(PATIENCE_S + 60):
            raise CrowdError("the crowd says nothing")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise CrowdError("the crowd ended") from None
        if not isinstance(answer, Arrived):
            raise answer
        return answer

    def obey(self, order: Order) -> Arrived:
        """Give an order and wait until it is carried out."""
        self.order(order)
        return self.answer()
