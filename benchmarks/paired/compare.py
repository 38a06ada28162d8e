"""Compare this checkout's server with another revision's: ``make bench-paired BASE=v0.1.0``.

    python -m benchmarks.paired BASE [--pairs 7] [--only SCENE ...] [--json FILE] [--quick]

A machine's speed drifts by more than the effect of most changes, so the two are measured
alternately, in the order old new new old …, and each pair gives one ratio new/old. A row is *worse*
when the lower quartile of its ratios is above 1.03. Every row is a cost: less is better. Each
server has its own revision's load, which speaks its protocol; what only one of them measures is not
a row. Both are copied to a temporary directory at the start, this checkout as it is then, changes
that are not committed included.

The status is 0 when no row is worse, 1 when one is, 2 when it could not be compared to the end.
"""

from __future__ import annotations

import argparse
import compileall
import functools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from benchmarks.measure import machine
from benchmarks.paired.scenes import SCENES
from tests.support.cluster import ROOT

WORSE: Final = 1.03
"""The lower quartile of new/old beyond which a row is worse."""
FIRST_LOAD: Final = "5a7652f2c26a"
"""The first revision that has a load to compare by; it speaks to all revisions before it."""
RELEASES: Final = {"v0.1.0": "cea2a6856f70"}
"""The commits of releases, for clones that were made without their tags."""
PACKAGES: Final = ("relay", "benchmarks", "loadtest", "tests")
RUN_SCENE: Final = """
import json, os, sys
from pathlib import Path
from benchmarks.measure import machine
from benchmarks.paired.scenes import QUICK, SCENES, Scale
name, source, data, quick = sys.argv[1:]
os.sched_setaffinity(0, machine.LOAD_CORES)
costs = SCENES[name](Path(source), Path(data), QUICK if quick else Scale())
print(json.dumps(costs))
"""
"""Run in a revision's load. It pins itself, and only after ``machine`` has seen all cores: what is
started with fewer takes those for the whole machine, and the server would share the load's core."""
ATTEMPTS: Final = 2
"""A machine that others use has its moments; what fails twice in a row is a fault."""


class NotCompared(Exception):
    """The text says what is wrong, and what to do."""


class Side(NamedTuple):
    """One of the two that are compared."""

    label: str
    source: Path
    """The directory that holds its package ``relay``."""
    load: Path
    """The directory that holds the packages of its load."""


@dataclass(slots=True)
class Row:
    """The measurements of one figure: a pair is (old, new)."""

    pairs: list[tuple[float, float]] = field(default_factory=list)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Return the quartiles of new/old."""
        ratios = [new / old for old, new in self.pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        return lower, middle, upper

    @property
    def verdict(self) -> str:
        """Return "worse", "better" (by as much) or nothing."""
        lower, _, upper = self.quartiles
        if lower > WORSE:
            return "worse"
        return "better" if upper < 1 / WORSE else ""


# --- the two sides --------------------------------------------------------------------------------
def take_revision(base: str, directory: Path) -> Side:
    """Copy a revision, and the load that speaks its protocol.

    Raises:
        NotCompared: there is no such revision, or it has no package ``relay``.
    """
    commit = _commit_of(base) or _commit_of(RELEASES.get(base, base))
    if commit is None:
        raise NotCompared(f"{base}: not a revision of this repository (a tag, a branch, a commit)")
    source = _unpack(commit, directory / "old")
    if not (source / "relay").is_dir():
        raise NotCompared(f"{base}: has no package relay")
    load = source
    if not (source / "benchmarks" / "paired").is_dir():
        load = _unpack(FIRST_LOAD, directory / "old-load")
    return _ready(Side(f"old: {base} ({commit[:12]})", source, load))


def take_checkout(directory: Path) -> Side:
    """Copy this checkout as it is now."""
    source = directory / "new"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    described = _git("describe", "--always", "--dirty", "--tags", "--abbrev=12")
    return _ready(Side(f"new: this checkout ({described})", source, source))


def _commit_of(revision: str) -> str | None:
    """Return the full hash of a revision; None if this clone has no such revision."""
    return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")


def _unpack(commit: str, directory: Path) -> Path:
    """Copy what a revision has to a new directory, and return it."""
    archive = directory.with_suffix(".tar")
    if _git("archive", "--output", str(archive), commit) is None:
        raise NotCompared(f"this clone has no revision {commit}: fetch the whole history")
    directory.mkdir()
    shutil.unpack_archive(archive, directory, filter="data")
    archive.unlink()
    return directory


def _git(*args: str) -> str | None:
    """Return what git prints; None when it fails."""
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


def _ready(side: Side) -> Side:
    """Compile it, and make sure that a server started from here runs this package and no other."""
    for package in PACKAGES:
        for directory in {side.source, side.load}:
            compileall.compile_dir(directory / package, quiet=2)
    # Every revision has this module: ``python -m relay.cli`` runs it.
    done = _run(side.source, "import relay.cli.__main__ as found; print(found.__file__)")
    if done.returncode:
        raise NotCompared(f"{side.label}: does not run here: {_last_line(done.stderr)}")
    if not Path(done.stdout.strip()).resolve().is_relative_to(side.source.resolve()):
        raise NotCompared(f"{side.label}: python takes {done.stdout.strip()} instead")
    return side


def _run(directory: Path, program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with the packages of a directory before all others."""
    return subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "without a word"


# --- measuring ------------------------------------------------------------------------------------
def compare(
    old: Side,
    new: Side,
    names: Sequence[str],
    pairs: int,
    quick: bool,
    scratch: Path,
    rows: dict[str, Row],
    show: Callable[[str], None],
) -> None:
    """Measure all pairs, and add them to the rows as they are complete."""
    began = time.monotonic()
    for number in range(pairs):
        for name in names:
            # ABBA: what grows or shrinks steadily weighs on both sides alike.
            order = (old, new) if number % 2 == 0 else (new, old)
            found = {side: _measure(name, side, quick, scratch) for side in order}
            for row, cost in found[old].items():
                if row in found[new]:
                    rows.setdefault(row, Row()).pairs.append((cost, found[new][row]))
        show(f"pair {number + 1} of {pairs}: done after {time.monotonic() - began:.0f} s")


def _measure(name: str, side: Side, quick: bool, scratch: Path) -> dict[str, float]:
    """Return what one scene costs; nothing if that side's load has no such scene."""
    if name not in _scenes(side):
        return {}
    for attempt in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(dir=scratch) as place:
            args = (name, str(side.source), str(Path(place) / "data"), "quick" if quick else "")
            done = _run(side.load, RUN_SCENE, *args)
        if not done.returncode:
            costs: dict[str, float] = json.loads(_last_line(done.stdout))
            return costs
        failure = f"{side.label}: {name}: {_last_line(done.stderr)}"
        print(f"attempt {attempt + 1} of {ATTEMPTS}: {failure}", file=sys.stderr)
    raise NotCompared(failure)


@functools.cache
def _scenes(side: Side) -> frozenset[str]:
    """Return the names of the scenes that a side's load has."""
    program = "from benchmarks.paired.scenes import SCENES; print(*SCENES)"
    done = _run(side.load, program)
    if done.returncode:
        raise NotCompared(f"{side.label}: its load does not run: {_last_line(done.stderr)}")
    return frozenset(done.stdout.split())


# --- reporting ------------------------------------------------------------------------------------
def table(rows: dict[str, Row]) -> list[str]:
    """Return the rows as printable lines."""
    width = max(map(len, rows), default=0)
    lines = [
        f"{'':{width}}  {'old':>9} {'new':>9}   new/old: lower  median   upper",
    ]
    for name, row in rows.items():
        lower, middle, upper = row.quartiles
        old, new = (statistics.median(pair[side] for pair in row.pairs) for side in (0, 1))
        lines.append(
            f"{name:{width}}  {old:9.4g} {new:9.4g}          {lower:7.3f} {middle:7.3f}"
            f" {upper:7.3f}  {row.verdict}".rstrip()
        )
    return lines


def _save(path: Path, old: Side, new: Side, rows: dict[str, Row]) -> None:
    figures = {
        "old": old.label,
        "new": new.label,
        "machine": machine.describe(),
        "rows": {
            name: {"pairs": row.pairs, "quartiles": row.quartiles, "verdict": row.verdict}
            for name, row in rows.items()
        },
    }
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paired",
        description="Compare this checkout's server with another revision's, by turns.",
    )
    parser.add_argument("base", metavar="BASE", help="the revision to compare with")
    parser.add_argument("--pairs", type=_pairs, default=7, metavar="N", help="how many (7)")
    parser.add_argument("--only", nargs="+", choices=SCENES, default=list(SCENES), help="some")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all figures go")
    parser.add_argument("--quick", action="store_true", help="tiny: does it work?")
    return parser.parse_args()


def _pairs(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)


def _terminated(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Compare; return the exit code."""
    options = _options()
    signal.signal(signal.SIGTERM, _terminated)
    rows: dict[str, Row] = {}
    failed = False
    with tempfile.TemporaryDirectory(prefix="relay-paired-") as name:
        directory = Path(name)
        try:
            old, new = take_revision(options.base, directory), take_checkout(directory)
            print(f"{old.label}\n{new.label}", flush=True)
            compare(
                old, new, options.only, options.pairs, options.quick, directory,
                rows, lambda line: print(line, flush=True),
            )  # fmt: skip
        except NotCompared as error:
            print(error, file=sys.stderr)
            failed = True
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            failed = True
    if rows:
        print("\n".join(table(rows)))
        if options.json:
            _save(options.json, old, new, rows)
    if failed:
        return 2
    return int(any(row.verdict == "worse" for row in rows.values()))
