"""A process beside a relay that is tested: it ends the relay when the program that started it ends.

However that ends, also by SIGKILL or os._exit, when nothing in it runs any more. Both are watched
by descriptors of processes (pidfd_open(2)): a number could be another process's by then, a pipe
would stay open in each fork of the program, and PR_SET_PDEATHSIG tells when the *thread* ends that
started the relay. Nobody has to end it: it ends when the relay does.

It is run as a file by an interpreter without site-packages, which is quick to start, and so imports
nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import select
import signal
import sys
from typing import Final

STOP_TIMEOUT_S: Final = 60.0
"""A relay that has not ended so long after SIGTERM is killed."""


def watch(program: int, server: int, scratch: str) -> None:
    """Wait for either process to end; if it is the program, stop the server and remove its files.

    Args:
        program: the descriptor of the process that started the relay.
        server: that of the supervisor.
        scratch: the temporary directory.
    """
    poll = select.poll()  # not select, which takes low descriptors alone
    poll.register(program, select.POLLIN)
    poll.register(server, select.POLLIN)
    if program not in dict(poll.poll()):
        return
    poll.unregister(program)
    _send(server, signal.SIGTERM)
    if not poll.poll(STOP_TIMEOUT_S * 1000):
        _send(server, signal.SIGKILL)
        poll.poll()
    import shutil  # hardly ever needed

    shutil.rmtree(scratch, ignore_errors=True)


def _send(server: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        signal.pidfd_send_signal(server, number)


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
