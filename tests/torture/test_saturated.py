"""A few seconds at the limit: nothing is found in a relay, and something in a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.checker import Fault
from tests.torture.saturated import Plan, Report, saturate


async def _run(directory: Path, seconds: float, fault: str = "", head_s: float = 60.0) -> Report:
    plan = Plan(
        seed=20261125,
        seconds=seconds,
        senders=4,
        steady=8,
        late=4,
        restless=4,
        fault=fault,
        head_s=head_s,
    )
    return await saturate(plan, directory)


async def test_nothing_lost_doubled_reordered_or_skipped(tmp_path: Path) -> None:
    """All see one sequence, and everything acknowledged is in it; that there was a load is seen."""
    report = await _run(tmp_path, 4.0)
    assert not report.findings, str(report)
    assert report.accepted >= 1000, str(report)
    assert report.judged >= 3 * report.messages, str(report)
    assert report.resumes, str(report)


@pytest.mark.parametrize(
    ("variant", "faults"),
    [
        ("live-too-early", {Fault.SKIPPED}),
        ("gap-on-resume", {Fault.GAP}),
        ("deliver-before-commit", {Fault.REFUSED}),
    ],
)
async def test_caught(tmp_path: Path, variant: str, faults: set[Fault]) -> None:
    """What this bug breaks is among what is found broken."""
    report = await _run(tmp_path, 1.5, variant, head_s=2.0)
    assert faults <= report.faults, str(report)
