"""``python -m loadtest.curve USERS... [-- LOCUST FLAGS]``: the capacity of a relay on this machine.

One run per number of users, each on a fresh relay; prints a Markdown table. The relay and the load
generator share the machine, so the figures are what both can do together.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtest import program
from loadtest.run import Parser, own_relay, run_locust
from relay.errors import UsageError
from relay.testing import RelayServer

SAMPLE_S: Final = 1.0
SECONDS_DEFAULT: Final = 60
SPAWN_PER_S: Final = 50
HEAD: Final = (
    "| users | messages/s | deliveries/s | stored p50 / p99 ms | delivered p50 / p99 ms "
    "| relay CPU % | generator CPU % | KB per connection |\n|--:|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass
class Usage:
    """What the relay's processes used."""

    pss_before: int = 0
    pss_max: int = 0
    cpu_s: float = 0.0


def watch(server: RelayServer, usage: Usage, over: threading.Event) -> None:
    """Sample until the run is over. Meanwhile no process may be replaced."""
    import psutil  # not at the top: ``program`` speaks first where the environment lacks it

    processes = [psutil.Process(pid) for pid in server.pids_titled()]
    usage.pss_before = sum(process.memory_full_info().pss for process in processes)
    began = sum(sum(process.cpu_times()[:2]) for process in processes)
    while not over.wait(SAMPLE_S):
        try:
            pss = sum(process.memory_full_info().pss for process in processes)
            usage.cpu_s = sum(sum(process.cpu_times()[:2]) for process in processes) - began
        except psutil.NoSuchProcess:
            continue
        usage.pss_max = max(usage.pss_max, pss)


def measure(users: int, workers: int, seconds: int, flags: Sequence[str]) -> str:
    """Return one row of the table."""
    usage, over = Usage(), threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="relay-curve-") as scratch,
        own_relay(workers) as server,
    ):
        path = Path(scratch) / "summary.json"
        spawn_s = users / SPAWN_PER_S
        watcher = threading.Thread(target=watch, args=(server, usage, over))
        watcher.start()
        began = time.monotonic()
        try:
            status = run_locust(
                server.address,
                [
                    "--headless", "--only-summary", "--reset-stats", "--json-summary", str(path),
                    "--users", str(users), "--spawn-rate", str(SPAWN_PER_S),
                    "--run-time", f"{spawn_s + seconds:.0f}s", *flags,
                ],
            )  # fmt: skip
        finally:
            over.set()
            watcher.join()
        summary = json.loads(path.read_text())
    return row(users, summary, usage, time.monotonic() - began, status)


def row(users: int, summary: dict[str, Any], usage: Usage, passed_s: float, status: int) -> str:
    """Return a row of the table from a run's summary."""
    latencies, counts = summary["latencies_us"], summary["counts"]
    measured_s = summary["seconds"]

    def both(name: str) -> str:
        found = latencies.get(name)
        return "–" if found is None else f"{found['p50'] / 1e3:.1f} / {found['p99'] / 1e3:.1f}"

    cells = [
        f"{users:,}",
        f"{counts.get('messages stored', 0) / measured_s:.1f}",
        f"{summary['checked'] / measured_s:,.0f}",
        both("publish→stored"),
        both("publish→delivered"),
        f"{100 * usage.cpu_s / passed_s:.0f}",
        f"{summary['generator']['cpu_percent']:.0f}" + " (saturated)" * summary["saturated"],
        f"{(usage.pss_max - usage.pss_before) / users / 1000:.0f}",
    ]
    return f"| {' | '.join(cells)} |" + f" exit {status}" * bool(status)


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit code. Raises UsageError, RelayNotStarted, Interrupted."""
    given = list(arguments)
    flags: list[str] = []
    if "--" in given:
        place = given.index("--")
        given, flags = given[:place], given[place + 1 :]
    parser = Parser()
    parser.add_argument("--seconds", type=int, default=SECONDS_DEFAULT)
    ours, users = parser.take(given)
    if not users or not all(number.isdecimal() and int(number) for number in users):
        raise UsageError("usage: python -m loadtest.curve USERS... [-- LOCUST FLAGS]")
    rows = [measure(int(number), ours.workers, ours.seconds, flags) for number in users]
    print("\n".join([HEAD, *rows]))
    return 0


if __name__ == "__main__":
    program.run(main)
