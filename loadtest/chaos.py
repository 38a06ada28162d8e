"""``python -m loadtest.chaos [--workers N] [--seconds S] [LOCUST FLAGS]``: a swarm on a relay
whose processes are killed during the run.

At 20 % and 40 % of the time a worker is killed; at 60 % the whole server is stopped with TERM and
started again. Like any other run it fails if a message is lost, duplicated or out of order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Final

from loadtest import program
from loadtest.run import Parser, own_relay, run_locust
from relay.testing import RelayServer

KILLS: Final = (0.2, 0.4)
RESTART: Final = 0.6
DOWN_S: Final = 2.0
"""Between the end of the server and its next start."""


def disrupt(server: RelayServer, seconds: float, over: threading.Event) -> None:
    """Kill and restart as the module describes, and print each step."""
    began = time.monotonic()

    def reached(share: float) -> bool:
        return not over.wait(max(0.0, began + share * seconds - time.monotonic()))

    for number, share in enumerate(KILLS):
        if not reached(share):
            return
        workers = server.worker_pids()
        victim = workers[number % len(workers)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        print(f"chaos: kill -9 of worker process {victim}", flush=True)
    if not reached(RESTART):
        return
    stopping = time.monotonic()
    server.stop()
    print(f"chaos: TERM; the server was gone after {time.monotonic() - stopping:.1f} s", flush=True)
    if over.wait(DOWN_S):
        return
    server.start()
    print(f"chaos: started again, {time.monotonic() - stopping:.1f} s after TERM", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run; return Locust's exit code. Raises UsageError, RelayNotStarted, Interrupted."""
    parser = Parser()
    parser.add_argument("--seconds", type=int, default=300)
    ours, flags = parser.take(arguments)
    with own_relay(ours.workers) as server:
        over = threading.Event()
        chaos = threading.Thread(target=disrupt, args=(server, ours.seconds, over))
        chaos.start()
        try:
            return run_locust(
                server.address,
                ["--headless", "--only-summary", "--run-time", f"{ours.seconds}s", *flags],
            )
        finally:
            over.set()
            chaos.join()


if __name__ == "__main__":
    program.run(main)
