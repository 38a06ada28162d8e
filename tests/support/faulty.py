"""``relay serve`` with one planted fault: ``python -m tests.support.faulty serve ...``.

The fault is named by RELAY_TEST_FAULT and installed in each worker after the fork, from outside:
the product has no code for it. RELAY_TEST_FAULT_MARKER names a file that the fault writes when it
strikes, so that it strikes once in the life of the server, and the test can see that it did.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.__main__ import main
from relay.server import start

if TYPE_CHECKING:
    from relay.server.context import WorkerContext
    from relay.server.worker.home import Waiting
    from relay.store.log import Outcome

TRIGGER = b"fault"
"""A message whose body has this makes the fault strike."""


def _strikes(marker: Path) -> bool:
    """Claim the one strike: True for the first process that asks."""
    try:
        fd = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return False
    os.write(fd, str(os.getpid()).encode())
    os.close(fd)
    return True


def stop_before_publish(marker: Path) -> None:
    """The home stops after COMMIT, before anybody is told."""
    from relay.server.worker.home import Home

    committed = Home._committed

    def stopping(self: Home, index: int, group: list[Waiting], outcomes: list[Outcome]) -> None:
        if any(TRIGGER in waiting.submission.body for waiting in group) and _strikes(marker):
            os.kill(os.getpid(), signal.SIGSTOP)
        committed(self, index, group, outcomes)

    Home._committed = stopping  # type: ignore[assignment, method-assign]


def drop_one_batch(marker: Path) -> None:
    """One batch vanishes between two workers, and nobody notices."""
    from relay.bus.link import Link
    from relay.bus.messages import Batch, Event

    publish = Link.publish

    def dropping(self: Link, message: Batch | Event) -> None:
        if TRIGGER in message.content and _strikes(marker):
            return
        publish(self, message)

    Link.publish = dropping  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[Path], None]] = {
    "stop-before-publish": stop_before_publish,
    "drop-one-batch": drop_one_batch,
}


def _install() -> None:
    fault = FAULTS[os.environ["RELAY_TEST_FAULT"]]
    marker = Path(os.environ["RELAY_TEST_FAULT_MARKER"])
    run = start._worker_main

    def worker_main(context: WorkerContext) -> int:
        fault(marker)
        return run(context)

    start._worker_main = worker_main


if __name__ == "__main__":
    _install()
    main()
