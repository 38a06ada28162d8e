"""One measured round of fan-out: 1 publisher, many subscribers, a server between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.load import payload, publishers
from benchmarks.load.publishers import Publisher
from benchmarks.load.swarm import Report, Swarm
from benchmarks.measure.latency import Delays

LOAD_SHARE_MAX: Final = 0.9
"""Of one core. Above it the load, not the server, may be what is measured: no ratio is shown."""
SETTLE_S: Final = 120.0
MARKERS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Offered:
    """The load that the publisher offers."""

    rate: float
    """Messages per second; 0: saturated."""
    per_write: int
    seconds: float
    size: int = payload.SIZE_BYTES
    """Bytes of a message. The marker at the end of a round always has the usual size."""

    def __str__(self) -> str:
        """As shown in tables."""
        rate = f"{self.rate:g}/s" if self.rate else "saturated"
        return f"{rate}, {self.per_write} per write"


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of a round."""

    published: int
    subscribers: int
    server_cpu_s: float
    load_cpu_s: float
    elapsed_s: float
    """From the first message sent to the last one received by the sample."""
    offered: int
    """Messages that were to be sent."""
    in_time: int
    """Messages that the pacer had when the last one was sent."""
    report: Report
    delays: Delays

    @property
    def deliveries(self) -> int:
        """Messages times subscribers: all were delivered."""
        return self.published * self.subscribers

    @property
    def cpu_us_per_delivery(self) -> float:
        """Server CPU of all its processes, µs."""
        return 1e6 * self.server_cpu_s / self.deliveries

    @property
    def deliveries_per_s(self) -> float:
        """By wall-clock time."""
        return self.deliveries / self.elapsed_s

    @property
    def load_share(self) -> float:
        """CPU of publisher and swarm together per second, of the one core that they share at least.

        With more cores for the load it overstates, never understates.
        """
        return self.load_cpu_s / self.elapsed_s

    @property
    def kept_up(self) -> float:
        """Delivered per offered at the moment of the last send: near 1, there is no backlog."""
        return self.in_time / self.offered

    def extra(self) -> dict[str, Any]:
        """Return the figures as JSON for ``extra_info``."""
        return {
            "cpu_us_per_delivery": round(self.cpu_us_per_delivery, 4),
            "deliveries_per_s": round(self.deliveries_per_s),
            "deliveries_per_cpu_s": round(self.deliveries / self.server_cpu_s),
            "server_share": round(self.server_cpu_s / self.elapsed_s, 3),
            "load_share": round(self.load_share, 3),
            "load_bound": self.load_share > LOAD_SHARE_MAX,
            "kept_up": round(self.kept_up, 3),
            "published": self.published,
            "bytes_per_delivery": round(self.report.size / self.deliveries, 1),
            "checked": self.report.checked,
            "fell_behind": self.report.behind,
            "correct": True,
            "delivery": self.delays.figures(),
        }


class WrongServer(AssertionError):
    """Something was lost, duplicated, damaged or out of order."""


class Fanout:
    """A publisher and a swarm at one server, for any number of rounds."""

    def __init__(
        self,
        publisher: Publisher,
        swarm: Swarm,
        server_cpu: Callable[[], float],
        window: int = publishers.WINDOW,
    ) -> None:
        self._publisher = publisher
        self._swarm = swarm
        self._server_cpu = server_cpu
        self._window = window
        self._next = 1

    @property
    def next(self) -> int:
        """The number of the next message."""
        return self._next

    def begin(self) -> None:
        """Prepare for a round; not measured."""
        self._swarm.begin(self._next)

    def run(self, offered: Offered) -> Figures:
        """Have one round.

        Raises:
            WrongServer: a subscriber did not receive everything in order.
        """
        first = self._next
        swarm, publisher = self._swarm, self._publisher
        server_before = self._server_cpu()
        load_before = swarm.cpu_s() + time.process_time()
        began_ns = time.monotonic_ns()
        if offered.rate:
            count = max(offered.per_write, round(offered.rate * offered.seconds))
            sent = publishers.at_rate(
                publisher,
                first,
                count,
                offered.rate,
                offered.per_write,
                lambda: swarm.progress,
                self._window,
                offered.size,
            )
        else:
            count = sent = publishers.saturated(
                publisher,
                first,
                offered.seconds,
                offered.per_write,
                lambda: swarm.progress,
                self._window,
                offered.size,
            )
        in_time = swarm.progress - first
        self._next += sent
        report = swarm.settle(self._next - 1, everybody=False, deadline_s=SETTLE_S)
        if report.missing or report.wrong:
            raise WrongServer(
                f"{report.missing} of the sample miss messages after {SETTLE_S:.0f} s:"
                f" at {swarm.progress} of {self._next}; {report.wrong}"
            )
        load_cpu_s = swarm.cpu_s() + time.process_time() - load_before
        delays = Delays()
        delays.add(report.delays)
        last = self._mark()
        server_cpu_s = self._server_cpu() - server_before
        if last.missing or last.wrong:
            raise WrongServer(f"{last.missing} subscribers miss messages; {last.wrong}")
        return Figures(
            published=self._next - first,
            subscribers=swarm.count,
            server_cpu_s=server_cpu_s,
            load_cpu_s=load_cpu_s,
            elapsed_s=(report.done_ns - began_ns) / 1e9,
            offered=count,
            in_time=in_time,
            report=last,
            delays=delays,
        )

    def _mark(self) -> Report:
        """Send one message alone: it proves that a subscriber has everything before it.

        A subscriber that was still reading older messages may get it behind them, where it cannot
        be told apart without decrypting all; so it is sent again until each has had it alone.
        """
        for _ in range(MARKERS_MAX):
            self._publisher.publish([payload.make(self._next, time.monotonic_ns())])
            self._next += 1
            report = self._swarm.settle(self._next - 1, everybody=True, deadline_s=3)
            self._publisher.collect(0)
            if not report.missing:
                break
        return report
