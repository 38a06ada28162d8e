"""The command that compares two revisions: all of its scenes, tiny."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
