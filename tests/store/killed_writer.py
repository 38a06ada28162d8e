"""A writer that is killed during a commit.

Its arguments: ``DIRECTORY STATEMENT TAIL_MAX``, and ``alone`` if the commit is of one message.

It commits counters 1 to 3, prints that, and dies before the given statement of the next commit.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import apsw

from tests.support.logs import NOW_MS, append, message, messages, open_partition


def main() -> None:
    """Write, and die."""
    directory, statement, tail_max = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    countdown: int | None = None

    def trace(_cursor: object, _statement: object, _bindings: object) -> bool:
        nonlocal countdown
        if countdown is not None:
            countdown -= 1
            if countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return True

    def put_in(connection: apsw.Connection) -> None:
        connection.exec_trace = trace

    apsw.connection_hooks.append(put_in)
    partition = open_partition(directory)
    assert partition._opened is not None
    partition._opened.unflushed.tail_max = tail_max
    append(partition, *messages(1, 3))
    print("acknowledged", flush=True)
    countdown = statement
    if sys.argv[4:] == ["alone"]:
        assert partition.append_lone(message(4), NOW_MS)
    else:
        append(partition, *messages(4, 6), message(1, log="new"))
    countdown = None
    print("acknowledged", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
