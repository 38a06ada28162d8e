"""A few seconds at full load: nothing is found in a relay, and something in a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.checker import Fault
from tests.torture.saturated import Plan, Report, saturate

LONGER = (1.5, 6.0, 24.0)
"""Seconds of the flood: a slow machine gets more."""


def _new(directory: Path, number: int) -> Path:
    made = directory / str(number)
    made.mkdir()
    return made


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
    """All members get one sequence, with everything acknowledged in it; and there was a load."""
    for number, seconds in enumerate(LONGER):
        report = await _run(_new(tmp_path, number), 2 * seconds)
        assert not report.findings, str(report)
        assert report.judged >= 3 * report.messages, str(report)
        if report.accepted >= 1000 and report.resumes:
            return
    raise AssertionError(str(report))


@pytest.mark.parametrize(
    ("variant", "faults"),
    [
        ("live-too-early", {Fault.SKIPPED}),
        ("gap-on-resume", {Fault.GAP}),
        ("deliver-before-commit", {Fault.REFUSED}),
    ],
)
async def test_caught(tmp_path: Path, variant: str, faults: set[Fault]) -> None:
    """The violation of this bug is among the findings."""
    for number, seconds in enumerate(LONGER):
        report = await _run(_new(tmp_path, number), seconds, variant, head_s=2.0)
        if faults <= report.faults:
            return
    raise AssertionError(str(report))
