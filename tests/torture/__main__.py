"""``python -m tests.torture --seconds 600 --seed 1``: a long run, and its result."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tests.support.throwaway import throwaway_keys
from tests.torture import amended, moderated
from tests.torture.effort import Effort
from tests.torture.run import Plan, torture

T = TypeVar("T")

MODERATED_TURNS_PER_S = 0.1
"""Seconds of a run for one turn of the test of rights; a turn takes about one."""
AMENDED_ROUNDS_PER_S = 0.1
"""Likewise for a round of the test of amendments."""


def minimum_for(seconds: float) -> Effort:
    """Return the minimum that a run of this length must have done, even on a slow machine, to be
    meaningful.
    """
    return Effort(
        acknowledged=int(20 * seconds),
        delivered=int(60 * seconds),
        worker_kills=int(0.08 * seconds),
        agent_kills=int(0.01 * seconds),
        server_kills=int(0.01 * seconds),
        server_stops=int(0.005 * seconds),
        reboots=int(0.003 * seconds),
        client_kills=int(0.06 * seconds),
        cuts=int(0.1 * seconds),
        stops=int(0.08 * seconds),
        dropped=int(0.1 * seconds),
        links_cut=int(0.02 * seconds),
        reconnects=int(0.3 * seconds),
        resumes=int(0.2 * seconds),
        resent=int(0.3 * seconds),
        catch_ups=int(0.02 * seconds),
        repairs=int(0.1 * seconds),
    )


async def _stoppable(run: Coroutine[Any, Any, T]) -> T:
    """Run to the end; TERM and INT end it and every process that it started."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await run


def main() -> int:
    """Run, print, and return 0 when the run passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--durability", choices=("process", "power"), default="process")
    parser.add_argument("--senders", type=int, default=3)
    parser.add_argument("--readers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--power-cuts", action="store_true", help="drop what was not synced, too")
    parser.add_argument("--pause", type=float, default=0.8, help="mean seconds between blows")
    given = parser.parse_args()
    plan = Plan(
        seed=given.seed,
        seconds=given.seconds,
        workers=given.workers,
        durability=given.durability,
        senders=given.senders,
        readers=given.readers,
        rate=given.rate,
        pause_s=given.pause,
        power_cuts=given.power_cuts,
        minimum=minimum_for(given.seconds),
    )
    directory = Path(tempfile.mkdtemp(prefix="relay-torture-"))
    began = time.monotonic()

    def show(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)

    show(f"seed {plan.seed}; data, histories and record in {directory}")
    turns = max(1, int(given.seconds * MODERATED_TURNS_PER_S))
    show(f"a moderated room: {turns} turns")
    try:
        moderated_room = asyncio.run(
            _stoppable(moderated.run(directory / "moderated", turns=turns, kills_every=3))
        )
        show(f"{moderated_room}")
        rounds = max(2, int(given.seconds * AMENDED_ROUNDS_PER_S))
        show(f"a room that keeps little, and conversations: {rounds} rounds")
        amendments = asyncio.run(_stoppable(amended.run(directory / "amended", rounds=rounds)))
        show(f"{amendments}")
        report = asyncio.run(_stoppable(torture(plan, directory, show)))
    except asyncio.CancelledError:
        show("stopped")
        return 130
    (directory / "record").write_text("\n".join(report.record) + "\n")
    show("\n" + str(report))
    for finding in moderated_room.findings:
        show(f"in the moderated room: {finding}")
    for found in amendments.findings:
        show(f"in the room that keeps little, or in a conversation: {found}")
    passed = report.passed and not moderated_room.findings and not amendments.findings
    if passed:
        shutil.rmtree(directory)
    return 0 if passed else 1


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
