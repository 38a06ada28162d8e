"""Measure how a server's cost grows, and fit a curve to each growth: ``make bench-growth``.

    python -m benchmarks.growth [--out FILE] [--quick] [--only SERIES ...]

Everything is server CPU by the kernel's clocks, all processes of the server together. A point is
the median of three rounds of about two seconds, after a short one that is not counted; a series has
one server, and each point rooms and members of its own. The result is one JSON file, from which
``benchmarks.growth.report`` makes the tables and the chart of docs/performance.md. ``--quick``
shows that all of it works, and like ``--only`` leaves the page alone: it makes one beside FILE.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.growth import report as growth_report
from benchmarks.growth.curves import Series
from benchmarks.growth.series import QUICK, SERIES, Scale
from benchmarks.measure import machine
from benchmarks.report.page import DOCS, RESULTS


def main() -> int:
    """Measure, save, and report; return the exit code."""
    options = _options()
    os.sched_setaffinity(0, machine.LOAD_CORES)
    scale = QUICK if options.quick else Scale()
    found: list[Series] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="relay-growth-") as name:
        for key in options.only or SERIES:
            place = Path(name) / key
            place.mkdir()
            found += SERIES[key](place / "data", scale)
            print(f"{key}: done after {time.monotonic() - began:.0f} s", flush=True)
        facts = _facts(options, scale, found, Path(name))
        for line in growth_report.lines(found):
            print(line)
        if options.quick or options.only:
            path: Path = options.out or Path(name) / "growth.json"
            docs = path.parent
        else:
            path = options.out or RESULTS / f"growth-{facts['date']}.json"
            docs = DOCS
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        page = growth_report.write(path, docs)
        print(f"written: {path} and {page}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="tiny: does it work?")
    parser.add_argument("--only", nargs="*", choices=SERIES, help="some series; no page is changed")
    return parser.parse_args()


def _facts(
    options: argparse.Namespace, scale: Scale, found: list[Series], directory: Path
) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "date": f"{now:%Y-%m-%d}",
        "command": "make bench-growth" + (' ARGS="--quick"' if options.quick else ""),
        "machine": machine.describe(),
        "filesystem": machine.filesystem(directory),
        "rounds": scale.rounds,
        "seconds": scale.seconds,
        "series": [one.to_json() for one in found],
    }
