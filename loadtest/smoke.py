"""``python -m loadtest.smoke``: chat users on a relay with two workers, for some seconds.

Fails on any broken promise, failed request or lost connection, and when nothing was checked.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtest import program
from loadtest.run import own_relay, run_locust
from relay.errors import UsageError

FLAGS: Final = (
    "--headless", "--only-summary", "--users", "40", "--spawn-rate", "20", "--run-time", "12s",
    "--scenario", "chat-day", "--rooms", "12", "--writers", "0.5", "--think-time", "1",
)  # fmt: skip
TIMEOUT_S: Final = 120.0
MUST_COUNT: Final = ("connections cut by users", "history entries checked")
"""Besides deliveries: these show that users did more than sit there."""
MUST_TIME: Final = (
    "handshake", "login", "join", "publish→stored", "publish→delivered", "resume", "history page",
)  # fmt: skip


def faults(summary: dict[str, Any]) -> list[str]:
    """Return what is wrong with a run, as sentences; empty: nothing."""
    counts, latencies = summary["counts"], summary["latencies_us"]
    found = [f"{summary[key]} {key}" for key in ("violations", "failures") if summary[key]]
    if not summary["checked"]:
        found.append("no delivery was checked")
    found += [f"no {name}" for name in MUST_COUNT if not counts.get(name)]
    found += [f"no {name} was timed" for name in MUST_TIME if name not in latencies]
    lost, cut = counts.get("connections lost", 0), counts.get("connections cut by users", 0)
    if lost > cut:
        found.append(f"{lost} connections were lost, users cut only {cut}")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit code. Raises RelayNotStarted, Interrupted."""
    if arguments:
        raise UsageError(f"{arguments[0]}: python -m loadtest.smoke takes no arguments")
    with tempfile.TemporaryDirectory(prefix="relay-smoke-") as scratch:
        path = Path(scratch) / "summary.json"
        with own_relay(2) as server:
            status = run_locust(server.address, [*FLAGS, "--json-summary", str(path)], TIMEOUT_S)
        if not path.exists():
            print(f"smoke: Locust ended with {status} and no summary", file=sys.stderr)
            return status or 1
        summary = json.loads(path.read_text())
    found = faults(summary)
    for fault in found:
        print(f"smoke: {fault}", file=sys.stderr)
    if not found:
        print(f"smoke: {summary['checked']} deliveries checked, nothing wrong")
    return status or (1 if found else 0)


if __name__ == "__main__":
    program.run(main)
