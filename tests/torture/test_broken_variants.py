"""The checker catches broken relays: each variant of ``tests.support.variants``, every time.

Each run is short, and its nemesis does what brings the bug to light.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.torture.checker import Fault
from tests.torture.nemesis import (
    Blow,
    cut,
    freeze_and_cut,
    kill_all_workers,
    kill_server,
    rest,
    stop_all_readers,
)
from tests.torture.run import Plan, Report, torture


class Case(NamedTuple):
    """A variant, what brings it to light, and what it must be found to have broken."""

    variant: str
    script: tuple[tuple[float, Blow], ...]
    faults: set[Fault]


CASES = (
    Case("deliver-before-commit", ((3.0, cut),), {Fault.SEQ_REUSED}),
    Case(
        "no-deduplication",
        ((1.0, freeze_and_cut), (1.0, freeze_and_cut), (1.0, freeze_and_cut)),
        {Fault.DOUBLED},
    ),
    Case("no-repair,drop-batches=0.2", ((2.0, rest),), {Fault.NOT_AT_HEAD}),
    Case(
        "cursor-is-head,small-outbox=10000", ((0.5, stop_all_readers), (2.5, cut)), {Fault.SKIPPED}
    ),
    Case("gap-on-resume", ((1.0, cut), (1.0, cut)), {Fault.GAP}),
    Case("silent-after-kill", ((0.5, kill_all_workers), (2.5, rest)), {Fault.NOT_AT_HEAD}),
    Case(
        "seq-reused",
        ((1.0, kill_all_workers), (1.0, kill_server)),
        {Fault.LOST, Fault.SEQ_REUSED},
    ),
    Case("forgets-pending", ((1.0, kill_all_workers), (1.0, rest)), {Fault.LOST}),
    Case("takes-copies-again", ((1.0, kill_all_workers), (1.0, rest)), {Fault.DOUBLED}),
)


async def _run(directory: Path, fault: str, script: tuple[tuple[float, Blow], ...]) -> Report:
    plan = Plan(
        seed=5,
        seconds=0,
        workers=2,
        senders=3,
        readers=2,
        rooms=2,
        rate=100.0,
        script=script,
        fault=fault,
        reader_options=("plain", "trusting"),
        back_s=10.0,
        head_s=2.0,
    )
    return await torture(plan, directory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.variant)
async def test_caught(case: Case, tmp_path: Path) -> None:
    """The promise that this bug breaks is among those that were found broken."""
    report = await _run(tmp_path, case.variant, case.script)
    assert case.faults <= report.faults, str(report)


async def test_the_same_torture_without_a_bug(tmp_path: Path) -> None:
    """Nothing is found: what is caught above is the bug."""
    blows = (cut, freeze_and_cut, stop_all_readers, kill_all_workers, kill_server, rest)
    report = await _run(tmp_path, "drop-batches=0.2", tuple((1.0, blow) for blow in blows))
    assert report.passed, str(report)
