"""The checker detects broken relays: each variant of ``tests.support.variants``, every time.

Each run is short, and its nemesis injects the faults that trigger the bug.
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
    """A variant, the faults that trigger it, and the violations that must be found."""

    variant: str
    script: tuple[tuple[int, Blow], ...]
    faults: set[Fault]


CASES = (
    Case("deliver-before-commit", ((600, cut),), {Fault.SEQ_REUSED}),
    Case(
        "no-deduplication",
        ((200, freeze_and_cut), (200, freeze_and_cut), (200, freeze_and_cut)),
        {Fault.DOUBLED},
    ),
    Case("no-repair,drop-batches=0.2", ((400, rest),), {Fault.NOT_AT_HEAD}),
    Case(
        "cursor-is-head,small-outbox=10000", ((100, stop_all_readers), (500, cut)), {Fault.SKIPPED}
    ),
    Case("gap-on-resume", ((200, cut), (200, cut)), {Fault.GAP}),
    Case("silent-after-kill", ((100, kill_all_workers), (400, rest)), {Fault.NOT_AT_HEAD}),
    Case(
        "seq-reused",
        ((200, kill_all_workers), (200, kill_server)),
        {Fault.LOST, Fault.SEQ_REUSED},
    ),
    Case("forgets-pending", ((200, kill_all_workers), (200, rest)), {Fault.LOST}),
    Case("takes-copies-again", ((200, kill_all_workers), (200, rest)), {Fault.DOUBLED}),
)


async def _run(
    directory: Path,
    fault: str,
    script: tuple[tuple[int, Blow], ...],
    back_s: float = 10.0,
    head_s: float = 2.0,
) -> Report:
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
        back_s=back_s,
        head_s=head_s,
    )
    return await torture(plan, directory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.variant)
async def test_caught(case: Case, tmp_path: Path) -> None:
    """The violation of this bug is found."""
    report = await _run(tmp_path, case.variant, case.script)
    assert case.faults <= report.faults, str(report)


async def test_the_same_torture_without_a_bug(tmp_path: Path) -> None:
    """Nothing is found: the findings above are caused by the bug."""
    blows = (cut, freeze_and_cut, stop_all_readers, kill_all_workers, kill_server, rest)
    report = await _run(
        tmp_path, "drop-batches=0.2", tuple((200, blow) for blow in blows), 120.0, 60.0
    )
    assert report.passed, str(report)
