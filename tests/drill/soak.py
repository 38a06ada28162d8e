"""``python -m tests.drill.soak``: a long run at half load with faults; checks whether anything
grows.

Memory and descriptors are compared for each process that runs all the time: the medians of memory
in the second and the last quarter of its samples, and the lowest tenths of descriptors. Worker 1
and the control process are killed, so supervisor, key agent and worker 0 run all the time.

Memory grows if it does so continuously: the third and the last quarter must both have added half of
the threshold. Memory that an allocator keeps after a peak, or a cache that fills, is added once.

Memory is all anonymous memory (RssAnon), whether its pages are shared or not. The unshared part
(USS) of a supervisor depends on how long ago its last children were forked: they share each page
until one of them writes to it.

Connections of the swarm's clients that are open at both ends are not counted: each kill of worker 1
moves all to worker 0, which gives them back one a second, so that their number there depends on
the times of the kills. The prober's connections are open at the server until it processes them:
their number depends on the load of the machine, and a leak also shows when it is lowest.
Nor are the first few of each file of a partition: a worker opens a reader of another one's
partition when a client first needs it, which may be late in a short run. A leak opens a file again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.drill.server import Server
from tests.drill.steps import WORKERS, backup, bad_reload, good_reload, killed
from tests.drill.swarm import Swarm
from tests.support.throwaway import throwaway_keys

SAMPLE_S: Final = 1.0
TITLES: Final = ("supervisor", "key agent", "worker 0", "clients")
GROWTH_KIB_MAX: Final = 2048
"""What an allocator may keep of a peak; more counts as growth."""
DESCRIPTORS_MAX: Final = 3
"""Connections of the prober and of ``relay ctl`` that may just be open."""
READERS: Final = 4
"""Descriptors of a partition's file: a writer's or the loop's reader, and those of threads."""
EXPECTED: Final = frozenset(
    {
        "starting", "control_ready", "agent_ready", "workers", "child_exited", "child_killed",
        "restart_delayed", "reloaded", "reload_refused", "stopping", "drained", "stopped",
        "server_key_generated", "recovery_began", "recovery_ended", "registration_chosen",
        "account_changed", "checkpoint_incomplete", "readers_fell_behind", "long_turn",
        "budget_reached", "open_files_limit_low", "rebalancing", "log_lines_left_out",
    }
)  # fmt: skip
"""Log events that the load and the faults explain."""
CHAOS: Final = {
    "kill -9 of worker 1": killed("relay: worker 1"),
    "kill -9 of the control process": killed("relay: control"),
    "reload": good_reload,
    "reload, refused": bad_reload,
    "backup": backup,
}


@dataclass(slots=True)
class Samples:
    """Samples of one process."""

    memory_kib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def growth(self, values: list[float], of: Callable[[list[float]], float]) -> float:
        """Return how much larger the last quarter is than the second one, by a statistic of
        each.
        """
        quarter = len(values) // 4
        if not quarter:
            return 0.0
        return of(values[-quarter:]) - of(values[quarter : 2 * quarter])

    @property
    def memory_growth_kib(self) -> float:
        """Of anonymous memory."""
        return self.growth(self.memory_kib, statistics.median)

    @property
    def steady_memory_growth_kib(self) -> float:
        """Twice the smaller growth of the last two quarters."""
        quarter = len(self.memory_kib) // 4
        if not quarter:
            return 0.0
        second, third, last = (
            statistics.median(self.memory_kib[at : at + quarter])
            for at in (quarter, 2 * quarter, len(self.memory_kib) - quarter)
        )
        return 2 * min(third - second, last - third)

    @property
    def descriptor_growth(self) -> float:
        """Of open descriptors."""
        return self.growth([float(count) for count in self.descriptors], _lowest_tenth)


def _lowest_tenth(values: list[float]) -> float:
    return sorted(values)[len(values) // 10]


def _anonymous_kib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    return float(status.partition("RssAnon:")[2].split()[0])


def _descriptors(process: psutil.Process) -> int:
    """Return how many are open, without those listed in the module's docstring."""
    stored = Counter(one.path for one in process.open_files() if ".sqlite" in one.path)
    clients = {one.laddr for one in psutil.Process().net_connections("tcp") if one.raddr}
    served = sum(one.raddr in clients for one in process.net_connections("tcp") if one.raddr)
    return process.num_fds() - served - sum(min(count, READERS) for count in stored.values())


async def _sample(server: Server, samples: dict[str, Samples]) -> None:
    while True:
        for title in TITLES:
            pids = (
                [psutil.Process().pid]
                if title == "clients"
                else (server.relay.pids_titled(f"relay: {title}"))
            )
            for pid in pids[:1]:
                try:
                    process = psutil.Process(pid)
                    memory = _anonymous_kib(pid)
                    descriptors = _descriptors(process)
                except (psutil.NoSuchProcess, OSError, IndexError):  # it has ended
                    continue
                samples[title].memory_kib.append(memory)
                samples[title].descriptors.append(descriptors)
        await asyncio.sleep(SAMPLE_S)


async def soak(directory: Path, seconds: float, rate: float, seed: int) -> int:
    """Run it and print the table; return 0 if nothing grew, and nothing was lost."""
    chance = random.Random(seed)
    samples = {title: Samples() for title in TITLES}
    done: Counter[str] = Counter()
    wrong: list[str] = []
    with Server(directory, WORKERS, {"server.worker_timeout_s": 10}) as server:
        async with Swarm(server.relay.address, writers=10, readers=20, rooms=8, rate=rate) as swarm:
            window = swarm.begin_window()
            sampling = asyncio.ensure_future(_sample(server, samples))
            end = time.monotonic() + seconds
            while time.monotonic() < end and not swarm.failures:
                name = chance.choice(list(CHAOS))
                await CHAOS[name](server, 1.0)
                done[name] += 1
                await server.whole(WORKERS)
                await asyncio.sleep(chance.uniform(2.0, 6.0))
                window.latencies_ms = window.latencies_ms[-100_000:]
            sampling.cancel()
            if not await swarm.finish():
                wrong.append("not everything was read")
            wrong += swarm.failures
        assert server.relay.stop() == 0
        events = Counter(json.loads(line)["event"] for line in server.relay.log)
    for name in ("lost", "doubled", "gaps", "refused"):
        if count := getattr(window, name):
            wrong.append(f"{count} {name}")
    print(f"{seconds:.0f} s, {sum(done.values())} times chaos: {dict(done)}")
    print(f"p50 {window.percentile(0.5):.0f} ms, p99 {window.percentile(0.99):.0f} ms\n")
    print("| process | memory, MiB | growth, KiB | descriptors | growth |")
    print("|---|---:|---:|---:|---:|")
    for title, one in samples.items():
        print(
            f"| {title} | {statistics.median(one.memory_kib) / 1024:.1f} | "
            f"{one.memory_growth_kib:+.0f} | {statistics.median(one.descriptors):.0f} | "
            f"{one.descriptor_growth:+.0f} |"
        )
        if title != "clients" and one.steady_memory_growth_kib > GROWTH_KIB_MAX:
            wrong.append(f"the memory of the {title} grows")
        if one.descriptor_growth > DESCRIPTORS_MAX:
            wrong.append(f"the descriptors of the {title} grow")
    if unexplained := {name: n for name, n in events.items() if name not in EXPECTED}:
        wrong.append(f"log lines unexplained: {unexplained}")
    print("\n" + ("\n".join(f"FAILED: {what}" for what in wrong) or "PASSED: nothing grew"))
    return 1 if wrong else 0


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.soak")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second: half load")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="relay-soak-") as directory:
        return asyncio.run(soak(Path(directory), given.seconds, given.rate, given.seed))


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
