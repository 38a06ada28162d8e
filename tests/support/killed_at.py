"""Runs something in a child that is killed (SIGKILL) before one of its changes to the disk."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at(step: int, run: Callable[[], object]) -> bool:
    """Run it until its change number ``step``, from 1; return False if it ended before.

    What SQLite writes is not counted.
    """
    pid = os.fork()
    if pid == 0:
        left = step

        def look(event: str, args: tuple[object, ...]) -> None:
            nonlocal left
            opens = event == "open" and isinstance(args[2], int) and args[2] & _WRITES
            if event in _CHANGES or opens:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            sys.addaudithook(look)
            run()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False
