"""``python -m tests.drill``: every step under load, and a table of what clients noticed."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.drill.server import Server
from tests.drill.steps import STEPS, WORKERS
from tests.drill.swarm import Swarm, Window
from tests.support.throwaway import throwaway_keys

HEAD = (
    "| step | p50, ms | p99, ms | longest, ms | longest offline, s | reconnects | lost | doubled | "
    "gaps | refused |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)
SETTINGS = {"server.worker_timeout_s": 2}


def line(name: str, window: Window) -> str:
    """Return a window as a line of the table."""
    cells = (
        name,
        *(f"{window.percentile(share):.0f}" for share in (0.5, 0.99, 1.0)),
        f"{window.offline_s:.2f}",
        *(window.reconnects, window.lost, window.doubled, window.gaps, window.refused),
    )
    return f"| {' | '.join(map(str, cells))} |"


async def drill(directory: Path, names: list[str], seconds: float, load: dict[str, float]) -> int:
    """Run the steps and print the table; return 0 if nothing was lost, duplicated or refused."""
    print(HEAD, flush=True)
    bad = 0
    with Server(directory, WORKERS, SETTINGS) as server:
        async with Swarm(
            server.relay.address,
            writers=int(load["writers"]),
            readers=int(load["readers"]),
            rooms=int(load["rooms"]),
            rate=load["rate"],
        ) as swarm:
            assert await swarm.caught_up()
            for name in names:
                window = swarm.begin_window()
                await STEPS[name](server, seconds)
                await server.whole(4 if "→ 4" in name else WORKERS)
                caught_up = await swarm.caught_up()
                print(line(name, window), flush=True)
                if not caught_up:
                    print(f"{name}: not everything was read", file=sys.stderr)
                wrong = window.lost + window.doubled + window.gaps + window.refused
                bad += wrong + (not caught_up)
            bad += not await swarm.finish()
            for failure in swarm.failures:
                print(failure, file=sys.stderr)
            bad += len(swarm.failures)
    return 1 if bad else 0


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a step that disturbs nobody")
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--rooms", type=int, default=8)
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--step", action="append", choices=list(STEPS), help="only these")
    given = parser.parse_args()
    load = {name: getattr(given, name) for name in ("writers", "readers", "rooms", "rate")}
    with tempfile.TemporaryDirectory(prefix="relay-drill-") as directory:
        names = given.step or list(STEPS)
        return asyncio.run(drill(Path(directory), names, given.seconds, load))


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
