"""The command that compares two revisions: all of its scenes, tiny."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measure import machine
from benchmarks.paired.compare import FIRST_LOAD, RELEASES, Row, take_revision
from tests.support.revisions import Revision

ROOT = Path(__file__).parents[2]


def paired(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.paired", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_paired(tmp_path: Path) -> None:
    """Each row has as many pairs as were asked for; the status tells whether one is worse."""
    out = tmp_path / "paired.json"
    done = paired("HEAD", "--quick", "--pairs", "2", "--json", str(out))
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert {name.split()[0] for name in rows} == {"1", "4", "5", "7", "8", "11"}
    assert all(len(row["pairs"]) == 2 for row in rows.values())
    assert all(name in done.stdout for name in rows)
    worse = any(row["verdict"] == "worse" for row in rows.values())
    assert done.returncode == int(worse)


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_runs_here(release: str, tmp_path: Path) -> None:
    """Whatever its modules were named then."""
    for commit in (RELEASES[release], FIRST_LOAD):
        Revision(commit, tmp_path)  # skips the test in a clone without them
    side = take_revision(release, tmp_path)
    assert (side.load / "benchmarks" / "paired").is_dir()


SCENES = """
import os
from benchmarks.measure import machine
QUICK = None
def rooms(source, data, scale):
    mine = os.sched_getaffinity(0)
    apart = len(mine - machine.SERVER_CORES)
    return {"all": len(machine.ALL_CORES), "load": len(mine), "apart": apart or 1}
SCENES = {"rooms": rooms}
Scale = None
"""
COMPARE = """
import os, sys
from pathlib import Path
from benchmarks.measure import machine
from benchmarks.paired import compare
load, *sys.argv[1:] = sys.argv[1:]
side = compare.Side("cores", Path(load), Path(load))
compare.take_revision = lambda base, directory: side
compare.take_checkout = lambda directory: side
sys.exit(compare.main())
"""
"""The command, with a load of its own."""


def test_the_load_leaves_the_server_its_core(tmp_path: Path) -> None:
    """Each scene knows all cores of the machine, and runs on those that are not the server's."""
    for package in (".", "measure", "paired"):
        (tmp_path / "benchmarks" / package).mkdir(parents=True, exist_ok=True)
        (tmp_path / "benchmarks" / package / "__init__.py").touch()
    shutil.copy(machine.__file__, tmp_path / "benchmarks" / "measure")
    (tmp_path / "benchmarks" / "paired" / "scenes.py").write_text(SCENES)
    out = tmp_path / "paired.json"
    arguments = [str(tmp_path), "HEAD", "--quick", "--pairs=1", "--only=rooms", f"--json={out}"]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, machine.ALL_CORES)  # a fixture has pinned this process
    try:
        subprocess.run([sys.executable, "-c", COMPARE, *arguments], cwd=ROOT, check=True)
    finally:
        os.sched_setaffinity(0, before)
    cores = len(machine.ALL_CORES)
    expected = {"all": cores, "load": max(cores - 1, 1), "apart": max(cores - 1, 1)}
    rows = json.loads(out.read_text())["rows"]
    assert {name: row["pairs"] for name, row in rows.items()} == {
        name: [[count, count]] for name, count in expected.items()
    }


def test_no_such_revision() -> None:
    done = paired("no-such-revision")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "no-such-revision: not a revision of this repository (a tag, a branch, a commit)"
    ]


@pytest.mark.parametrize(
    ("news", "verdict"),
    [
        ([1.04, 1.05, 1.2, 1.1, 1.04], "worse"),
        ([1.04, 1.05, 1.2, 1.0, 1.0], ""),
        ([0.9, 0.9, 0.95, 1.2, 0.8], "better"),
    ],
)
def test_verdict(news: list[float], verdict: str) -> None:
    """Three quarters of the pairs have to agree."""
    assert Row([(1.0, new) for new in news]).verdict == verdict
