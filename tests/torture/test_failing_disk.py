"""Torture on a disk that fails repeatedly below SQLite: the guarantees hold.

Effects of a failing disk on epochs are tested with the store alone (tests/store/test_disks.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.checker import Fault
from tests.torture.nemesis import cut, freeze_and_cut, kill_all_workers, rest
from tests.torture.run import Plan, Report, torture


async def _run(directory: Path, fault: str, back_s: float = 120.0, head_s: float = 120.0) -> Report:
    blows = (rest, cut, rest, kill_all_workers, freeze_and_cut, rest)
    plan = Plan(
        seed=20,
        seconds=0,
        workers=2,
        senders=3,
        readers=2,
        rooms=2,
        rate=60.0,
        script=tuple((120, blow) for blow in blows),
        fault=fault,
        back_s=back_s,
        head_s=head_s,
    )
    report = await torture(plan, directory)
    assert _markers(directory), "the disk never failed"
    return report


def _markers(directory: Path) -> list[Path]:
    return list(directory.rglob("*.fault"))


@pytest.mark.parametrize("kind", ["full", "broken"])
async def test_a_disk_that_fails_again_and_again(kind: str, tmp_path: Path) -> None:
    """Everything is stored in the end, once and in order, and readers get no gap."""
    report = await _run(tmp_path, f"failing-disk={kind}:0.02")
    assert report.passed, str(report)


@pytest.mark.parametrize(
    ("kind", "variant"),
    [("full", "remembers-what-did-not-fit"), ("broken", "takes-an-error-for-success")],
)
async def test_caught(kind: str, variant: str, tmp_path: Path) -> None:
    """A message that was not stored is acknowledged: at once, or when it is sent again."""
    report = await _run(tmp_path, f"{variant},failing-disk={kind}:0.02", back_s=5.0, head_s=1.0)
    assert Fault.LOST in report.faults, str(report)
