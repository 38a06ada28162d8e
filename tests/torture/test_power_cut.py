"""The power of the whole machine is cut: unsynced writes are lost, and no guarantee is violated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.checker import Fault
from tests.torture.nemesis import Blow, cut_power, freeze_and_cut, kill_all_workers, rest
from tests.torture.run import Plan, Report, torture

ALL: tuple[Blow, ...] = (rest, cut_power, kill_all_workers, freeze_and_cut, cut_power, rest)


async def _run(
    directory: Path,
    durability: str,
    variant: str = "",
    blows: tuple[Blow, ...] = ALL,
    back_s: float = 60.0,
) -> Report:
    plan = Plan(
        seed=21,
        seconds=0,
        durability=durability,
        senders=2,
        readers=2,
        rooms=2,
        rate=60.0,
        script=tuple((80, blow) for blow in blows),
        fault=variant,
        power_cuts=True,
        reader_options=("plain", "trusting"),
        back_s=back_s,
        head_s=60.0 if not variant else 1.0,
    )
    return await torture(plan, directory)


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_what_is_promised_survives(durability: str, tmp_path: Path) -> None:
    """Under "power" everything acknowledged; under "process" all but ends of epochs, for which
    readers get gaps, and no sequence number is reused with another meaning.
    """
    report = await _run(tmp_path, durability)
    assert report.passed, str(report)
    assert report.effort.power_cuts == 2
    assert report.effort.unsynced, "nothing was lost with the power"


@pytest.mark.parametrize(
    ("variant", "durability", "blows", "back_s", "fault"),
    [
        # Nothing after the cut: mostly it has lost users' keys, too, and no client comes back.
        ("does-not-wait-for-disk", "power", (rest, cut_power), 1.0, Fault.LOST),
        ("keeps-its-epoch", "process", ALL, 5.0, Fault.SEQ_REUSED),
    ],
)
async def test_caught(
    variant: str,
    durability: str,
    blows: tuple[Blow, ...],
    back_s: float,
    fault: Fault,
    tmp_path: Path,
) -> None:
    """Acknowledged too early; or sequence numbers that are reused with another meaning."""
    report = await _run(tmp_path, durability, variant, blows, back_s)
    assert fault in report.faults, str(report)
