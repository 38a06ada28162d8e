"""Probes of a worker's loop: a message every few ms, and how long its acknowledgement took.

A message into a log whose home is the worker that serves the sender's connection passes no other
process. Whatever blocks the loop of that worker, or keeps it from a CPU, shows as a delay.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from benchmarks.measure.latency import Delays
from benchmarks.stalls.looks import OtherThreads, look
from relay.wire.envelopes import Ack, Refused, Send
from relay.wire.packing import pack
from tests.support.processes import Scheduled, scheduled
from tests.support.raw import RawClient

EVERY_S: Final = 0.005
STALL_S: Final = 0.050
LOOK_S: Final = 0.015
"""After so long it is looked at what the worker does, until it answers: a quarter of a millisecond
each time."""
WAKE_NS: Final = 2_000_000
"""The kernel wakes in whole milliseconds: so late is in time."""
BODY: Final = bytes(64)
DEADLINE_S: Final = 30.0


@dataclass(slots=True)
class Stall:
    """A time in which a worker answered no probe for longer than ``STALL_S``."""

    began_ns: int
    """When the first probe was due that had to wait."""
    delay_ns: int
    """The longest delay of a probe in it."""
    ran_ns: int
    """Of that delay: the worker's loop was running."""
    waited_ns: int
    """Of that delay: it was ready, and waited for a CPU."""
    probe_waited_ns: int
    """Of that delay: the process that probes waited for a CPU."""
    others_waited_ns: int = 0
    """Other threads of the worker were ready meanwhile, and waited for a CPU."""
    probe_late_ns: int = 0
    """By so much the process that probes was late with what it had to do meanwhile, whatever kept
    it: it may have been the whole machine."""
    looks: tuple[str, ...] = ()
    """What the worker was seen to do meanwhile (``looks``)."""
    probes: int = 1
    """How many probes waited for more than ``STALL_S``."""

    @property
    def own_ns(self) -> int:
        """The delay without the waits for CPUs.

        While the loop sleeps in a futex, another thread has the interpreter, and may have no CPU.
        """
        probe_ns = max(self.probe_waited_ns, self.probe_late_ns)
        others_ns = min(max(self.blocked_ns - probe_ns, 0), self.others_waited_ns)
        return self.delay_ns - self.waited_ns - probe_ns - others_ns

    @property
    def explained(self) -> bool:
        """True if it would not be a stall, had every thread had a CPU at once."""
        return self.own_ns <= STALL_S * 1e9

    @property
    def blocked_ns(self) -> int:
        """The loop neither ran nor was ready: it slept (a lock, a disk), or had nothing to do."""
        return max(self.delay_ns - self.ran_ns - self.waited_ns, 0)


class _Sent(NamedTuple):
    """A probe on its way."""

    due_ns: int
    worker: Scheduled
    probe: Scheduled
    """The times of both processes when it was sent."""
    others_waited_ns: int
    late_ns: int
    """As of when it was due."""


class Prober:
    """Probes one worker."""

    def __init__(self, client: RawClient, log: str, pid: int) -> None:
        """Prepare.

        Args:
            client: a connection that the worker serves.
            log: one whose home is the worker.
            pid: of the worker.
        """
        self.client = client
        self._log = log
        self._pid = pid
        self._counter = 0
        self._sent: deque[_Sent] = deque()
        self.due_ns = 0
        """When the next probe is due."""
        self.delays = Delays()
        """From when each was due."""
        self.stalls: list[Stall] = []
        self._looks: list[str] = []
        self.threads = OtherThreads(pid)
        self.late_ns = 0
        """How late the process that probes has been with anything, all together."""

    def look(self, now_ns: int) -> None:
        """See what the worker does, if it is late with an answer."""
        if self._sent and now_ns - self._sent[0].due_ns > LOOK_S * 1e9:
            self._looks.append(look(self._pid))

    @property
    def unanswered(self) -> int:
        """Probes on their way."""
        return len(self._sent)

    def send(self) -> None:
        """Send the probe that is due."""
        self._counter += 1
        self._sent.append(
            _Sent(
                self.due_ns,
                scheduled(self._pid),
                scheduled(os.getpid()),
                self.threads.waited_ns(),
                self.late_ns - (time.monotonic_ns() - self.due_ns),
            )
        )
        self.client.send_content(pack(Send(self._log, self._counter, 0, "", BODY)))
        self.due_ns += int(EVERY_S * 1e9)

    def take(self) -> None:
        """Take the answers that have come."""
        for envelope in self.client.read():
            if isinstance(envelope, Ack):
                self._answered(time.monotonic_ns())
            elif isinstance(envelope, Refused):
                raise ConnectionError(f"refused: {envelope}")

    def _answered(self, now_ns: int) -> None:
        sent = self._sent.popleft()
        delay_ns = now_ns - sent.due_ns
        self.delays.record_ns(delay_ns)
        looks, self._looks = self._looks, []
        if delay_ns <= STALL_S * 1e9:
            return
        worker, probe = scheduled(self._pid), scheduled(os.getpid())
        stall = Stall(
            sent.due_ns,
            delay_ns,
            worker.ran_ns - sent.worker.ran_ns,
            worker.waited_ns - sent.worker.waited_ns,
            probe.waited_ns - sent.probe.waited_ns,
            max(self.threads.waited_ns() - sent.others_waited_ns, 0),
            self.late_ns - sent.late_ns,
            tuple(looks),
        )
        last = self.stalls[-1] if self.stalls else None
        if last is None or sent.due_ns > last.began_ns + last.delay_ns:
            self.stalls.append(stall)
        else:
            last.probes += 1
            if delay_ns > last.delay_ns:
                stall.probes, stall.began_ns = last.probes, last.began_ns
                stall.looks = last.looks + stall.looks
                self.stalls[-1] = stall


def probe(probers: list[Prober], seconds: float, meanwhile: Callable[[], None]) -> None:
    """Probe all workers for so long, each on a schedule that waits for nobody.

    Args:
        probers: one for each worker.
        seconds: how long.
        meanwhile: called about once a second; must be quick.

    Raises:
        TimeoutError: probes stay unanswered.
    """
    epoll = select.epoll()
    by_fileno = {prober.client.socket.fileno(): prober for prober in probers}
    for fileno in by_fileno:
        epoll.register(fileno, select.EPOLLIN)
    began_ns = time.monotonic_ns()
    end_ns = began_ns + int(seconds * 1e9)
    for number, prober in enumerate(probers):
        prober.due_ns = began_ns + int(EVERY_S * 1e9 * number / len(probers))
    look_ns = began_ns
    while (now_ns := time.monotonic_ns()) < end_ns:
        if now_ns >= look_ns:
            meanwhile()
            for prober in probers:
                prober.threads.refresh()
            look_ns += 1_000_000_000
        for prober in probers:
            while prober.due_ns <= now_ns:
                prober.send()
        due_ns = min(prober.due_ns for prober in probers)
        ready = epoll.poll(max(due_ns - time.monotonic_ns(), 0) / 1e9)
        late_ns = max(time.monotonic_ns() - due_ns - WAKE_NS, 0)
        for prober in probers:
            prober.late_ns += late_ns
        for fileno, _ in ready:
            by_fileno[fileno].take()
        for prober in probers:
            prober.look(time.monotonic_ns())
    deadline = time.monotonic() + DEADLINE_S
    while any(prober.unanswered for prober in probers):
        if time.monotonic() > deadline:
            raise TimeoutError("probes stay unanswered")
        for fileno, _ in epoll.poll(1.0):
            by_fileno[fileno].take()
    epoll.close()
