"""A short random run against the real relay: nothing is found, and it did enough to be
meaningful.
"""

from __future__ import annotations

from pathlib import Path

from tests.torture.effort import Effort
from tests.torture.run import Plan, torture

MINIMUM = Effort(
    acknowledged=300,
    delivered=1000,
    worker_kills=2,
    agent_kills=1,
    server_kills=2,
    server_stops=1,
    reboots=1,
    client_kills=1,
    cuts=5,
    stops=3,
    dropped=1,
    reconnects=10,
    resumes=10,
    resent=1,
    catch_ups=1,
    repairs=1,
)
"""Low on purpose: a slow machine does little in the time, but every fault must have happened."""


async def test_nothing_lost_doubled_reordered_or_skipped(tmp_path: Path) -> None:
    """The guarantees of docs/reliability.md, under all faults of the nemesis."""
    plan = Plan(
        seed=20261124,
        seconds=15.0,
        rate=60.0,
        pause_s=0.6,
        minimum=MINIMUM,
        back_s=120.0,
        head_s=60.0,
    )
    report = await torture(plan, tmp_path)
    assert report.passed, str(report)
