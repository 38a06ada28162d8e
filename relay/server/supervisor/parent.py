"""The first process after an upgrade: it stays as the parent of the serving supervisor.

Its own parent (a shell, a container, a program like supervisord) knows no other process. So it
forwards signals, and exits with the exit code of the server, whichever version that is by then.
Under systemd, which is told of the new main process, no such process stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Final

from relay.server.supervisor import process
from relay.server.supervisor.handover import receive_messages
from relay.server.supervisor.signals import HANDLED
from relay.server.system.prctl import adopt_orphans
from relay.server.system.start_signals import RESIZE

TITLE: Final = "relay: parent"
PASSED_ON: Final = frozenset({*HANDLED, *RESIZE}) - {signal.SIGCHLD}
SENT_BY_KERNEL: Final = 0x80
"""SI_KERNEL: sent by a terminal, which also sent it to the serving process."""


def stay(pid: int, line: socket.socket) -> int:
    """Wait for the end of the server. Returns its exit code, or 128 plus the signal that killed it.

    Args:
        pid: of the supervisor that serves.
        line: on which it reports if another one takes over from it.
    """
    process.set_title(TITLE)
    adopt_orphans()
    waited_for = {*PASSED_ON, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    ends: dict[int, process.Exit] = {}
    while True:
        ends |= process.reap()
        while pid in ends:
            how, next_pid = ends.pop(pid), _successor(line)
            if not next_pid:
                return how.code if how.code >= 0 else 128 - how.code
            pid = next_pid
        info = signal.sigwaitinfo(waited_for)
        if info.si_signo != signal.SIGCHLD and info.si_code != SENT_BY_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, info.si_signo)


def _successor(line: socket.socket) -> int:
    """Return the process that took over from the one that has ended; 0: none."""
    try:
        return int(receive_messages(line)[-1]["main"])
    except (EOFError, IndexError, KeyError, ValueError):
        return 0
