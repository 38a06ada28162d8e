"""A process beside a tested relay: it stops the relay when the program that started it ends.

This works however the program ends, even by SIGKILL or os._exit. Both are watched by process
descriptors (pidfd_open(2)): a process id could be reused, a pipe would stay open in each fork of
the program, and PR_SET_PDEATHSIG fires when the *thread* ends that started the relay. The watcher
ends by itself when the relay does.

It is run as a file by an interpreter without site-packages, which starts fast, and so imports only
the standard library, and nothing before it is needed that would take longer than that.
"""

from __future__ import annotations

import select
import sys

STOP_TIMEOUT_S = 60.0
"""A relay that has not stopped this long after SIGTERM is killed."""


def watch(program: int, server: int, scratch: str) -> None:
    """Wait for either process to end; if it is the program, stop the server and remove its files.

    Args:
        program: the descriptor of the process that started the relay.
        server: the descriptor of the supervisor.
        scratch: the temporary directory.
    """
    poll = select.poll()  # not select, which only accepts low descriptors
    poll.register(program, select.POLLIN)
    poll.register(server, select.POLLIN)
    if program not in dict(poll.poll()):
        return
    poll.unregister(program)
    import shutil  # rarely needed, as is the next one
    import signal

    for number in signal.SIGTERM, signal.SIGKILL:
        try:
            signal.pidfd_send_signal(server, number)
        except ProcessLookupError:  # it has ended meanwhile
            break
        if poll.poll(STOP_TIMEOUT_S * 1000):
            break
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
