"""Torture on a disk that fails below SQLite, again and again: the promises hold.

What a broken disk does to epochs is tested with the store alone (tests/store/test_disks.py).
"""

from __future__ import annotations

from pathlib import Path

from tests.torture.nemesis import cut, freeze_and_cut, kill_all_workers, rest
from tests.torture.run import Plan, torture


async def test_a_disk_that_is_full_again_and_again(tmp_path: Path) -> None:
    """Everything is stored in the end, once and in order, and readers are told of no gap."""
    blows = (rest, cut, rest, kill_all_workers, freeze_and_cut, rest)
    plan = Plan(
        seed=20,
        seconds=0,
        workers=2,
        senders=3,
        readers=2,
        rooms=2,
        rate=60.0,
        script=tuple((1.0, blow) for blow in blows),
        fault="failing-disk=full:0.02",
        back_s=20.0,
        head_s=10.0,
    )
    report = await torture(plan, tmp_path)
    assert report.passed, str(report)
    assert _markers(tmp_path), "the disk never was full"


def _markers(directory: Path) -> list[Path]:
    return list(directory.rglob("*.fault"))
