"""The end of a run: figures on the terminal and as JSON, and the exit code."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import gevent
import psutil
from gevent.lock import BoundedSemaphore
from locust.rpc import Message
from locust.runners import (
    STATE_RUNNING,
    STATE_SPAWNING,
    STATE_STOPPING,
    WORKER_REPORT_INTERVAL,
    MasterRunner,
    WorkerRunner,
)

from loadtest import hooks
from loadtest.measures import Measures
from loadtest.saturation import SATURATED
from loadtest.swarm import SWARM, gather

if TYPE_CHECKING:
    from locust.env import Environment

EXIT_BROKEN: Final = 1
WORKERS_STOP_S: Final = 10.0
"""Beyond the time that users have to leave."""
_BUSY: Final = frozenset({STATE_SPAWNING, STATE_RUNNING, STATE_STOPPING})
_ending: Final = BoundedSemaphore(1)
_ended: Final[WeakSet[Environment]] = WeakSet()
"""Runs whose summary is printed."""
FACTS: Final[dict[str, Any]] = {}
"""What a locustfile adds: its parameters, the capacity that it found."""


def summarise(environment: Environment, measures: Measures) -> dict[str, Any]:
    """Return the run as plain data."""
    assert environment.runner is not None
    counts = dict(sorted(measures.counts.items()))
    return {
        "machine": {"system": platform.platform(), "cores": psutil.cpu_count()},
        "seconds": round(time.monotonic() - SWARM.began, 1),
        "users": environment.runner.target_user_count,
        "requests": hooks.count_of(environment, hooks.REQUEST),
        "failures": environment.stats.total.num_failures,
        "violations": measures.violations,
        "checked": counts.get("deliveries checked", 0),
        "saturated": counts.get("seconds saturated", 0) > 0,
        "latencies_us": measures.latencies(),
        "counts": counts,
        "generator": measures.peaks,
        "examples": measures.examples,
        **FACTS,
    }


def _lines(summary: dict[str, Any]) -> list[str]:
    lines = [f"\n{'microseconds':<28}{'count':>9}" + "".join(
        f"{key:>11}" for key in ("p50", "p90", "p99", "p99.9", "max")
    )]  # fmt: skip
    for name, row in summary["latencies_us"].items():
        count, *values = row.values()
        lines.append(f"{name:<28}{count:>9}" + "".join(f"{value:>11}" for value in values))
    lines += [f"{name}: {count}" for name, count in summary["counts"].items()]
    lines += [f"  {text}" for text in summary["examples"]]
    lines.append(
        f"checked: {summary['checked']} deliveries, {summary['violations']} violations, "
        f"{summary['failures']} failures"
    )
    if "capacity" in summary:
        lines.append(f"CAPACITY: {summary['capacity']}")
    if summary["saturated"]:
        lines.append(f"{SATURATED} ({summary['counts']['seconds saturated']} s of the run)")
    return lines


def _await_workers(environment: Environment) -> None:
    """Wait for the last reports: Locust's master counts users by reports that may be old."""
    runner = environment.runner
    if isinstance(runner, MasterRunner):
        with gevent.Timeout(environment.stop_timeout + WORKERS_STOP_S, False):
            while any(client.state in _BUSY for client in runner.clients.all):
                gevent.sleep(0.1)
        gevent.sleep(WORKER_REPORT_INTERVAL + 0.5)  # they report at intervals, not at their end


def dismiss_workers(environment: Environment, **_: object) -> None:
    """Send the workers away, and take what each reports last; Locust calls it before it does so.

    Locust's master listens for half a second more, and what users find when they leave comes later.
    With a web page the workers stay: only the test ends, and Locust waits for its users.
    """
    runner, options = environment.runner, environment.parsed_options
    if not isinstance(runner, MasterRunner) or not getattr(options, "headless", False):
        return
    message: Any = Message
    for client in runner.clients.all:
        runner.server.send_to_client(message("quit", None, client.id))
    with gevent.Timeout(environment.stop_timeout + WORKERS_STOP_S, False):
        while runner.clients.all:  # each says good-bye after its last report
            gevent.sleep(0.05)


def await_end(environment: Environment, **_: object) -> None:
    """Be the first to hear of the end; Locust calls it when there is a runner.

    The last to listen hears of it first. Locust's master sends its workers away when it does, and
    then they have no time for their last checks.
    """
    hooks.listen("quitting", end)


def end(environment: Environment, **_: object) -> None:
    """Print the summary, and set the exit code; Locust calls it, and twice when interrupted."""
    with _ending:
        if environment not in _ended:
            _ended.add(environment)
            _end(environment)


def _end(environment: Environment) -> None:
    if isinstance(environment.runner, WorkerRunner) or environment.runner is None:
        return
    if environment.runner.state in _BUSY:
        # Interrupted: users leave as at the end of the run time, for the last checks are made then.
        environment.runner.stop()
        _await_workers(environment)
    measures = gather()
    if not environment.stats.total.num_requests and not measures.counts:
        return  # nothing ran
    summary = summarise(environment, measures)
    print("\n".join(_lines(summary)), file=sys.stderr)
    if measures.violations or not summary["checked"]:
        environment.process_exit_code = EXIT_BROKEN
    path = getattr(environment.parsed_options, "json_summary", "")
    if path:
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        if path == "-":
            sys.stdout.write(text)
        else:
            Path(path).write_text(text, encoding="utf-8")


def add_option(parser: argparse.ArgumentParser, **_: object) -> None:
    """Add ``--json-summary``; Locust calls it."""
    options: Any = parser  # Locust's own parser knows more keywords
    options.add_argument(
        "--json-summary",
        default="",
        metavar="FILE",
        include_in_web_ui=False,
        help="write the summary of the run as JSON ('-': to standard output)",
    )
