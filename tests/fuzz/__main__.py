"""``python -m tests.fuzz``: look for inputs that break a guarantee, for some seconds.

Every target in turn gets a slice of inputs with a seed of its own. A finding is printed with its
seed and the smallest input that shows it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter
from typing import Final

from tests.fuzz import client, connections, files, requests, server, texts, wire
from tests.fuzz.target import Finding, Target, run_slice
from tests.support.throwaway import throwaway_keys

TARGETS: Final = {
    target.name: target
    for module in (wire, connections, requests, texts, files, client)
    for target in module.TARGETS
}
SERVER: Final = "server"
SERVER_SHARE: Final = 1 / 3
"""The part of the time for mixes against a whole server."""
SERVER_SECONDS_MIN: Final = 5.0


def search(targets: list[Target], seed: int, until: float) -> tuple[Counter[str], Finding | None]:
    """Give slices to the targets in turn; return how many inputs each got, and the first finding.

    Every target gets one slice at least.
    """
    tried: Counter[str] = Counter()
    turn = 0
    while turn == 0 or time.monotonic() < until:
        for target in targets:
            if turn and time.monotonic() >= until:
                break
            finding = run_slice(target, seed + turn)
            tried[target.name] += target.inputs_max
            if finding is not None:
                return tried, finding
        turn += 1
    return tried, None


def main() -> int:
    """Parse the command line; return the exit status."""
    server.leave_nothing_behind()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="repeat a run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--target", choices=[*TARGETS, SERVER], action="append", default=None)
    which.add_argument(
        "--without-server", action="store_true", help="every target but the whole server"
    )
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    names = given.target or [*TARGETS, *([] if given.without_server else [SERVER])]
    targets = [TARGETS[name] for name in names if name != SERVER]
    print(f"seed {seed}, {given.seconds:.0f} s: {', '.join(names)}", flush=True)
    began = time.monotonic()
    whole = SERVER in names
    share = (SERVER_SHARE if targets else 1.0) if whole else 0.0
    if targets:
        tried, finding = search(targets, seed, began + given.seconds * (1 - share))
        for name, count in tried.items():
            print(f"{name:<18}{count:>9,} inputs")
        if finding is not None:
            print(f"\nFINDING in {finding.target}\n\n{finding.report}")
            print(f"again: make fuzz SEED={finding.seed} ARGS='--target {finding.target}'")
            return 1
    if whole:
        seconds = max(SERVER_SECONDS_MIN, given.seconds - (time.monotonic() - began))
        if server.mixes(seed, seconds):
            print(f"again: make fuzz SEED={seed} ARGS='--target {SERVER}'")
            return 1
    print(f"no finding in {time.monotonic() - began:.0f} s, seed {seed}")
    return 0


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
