"""Makes event loops. A system that allows none is reported by one exception, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable


def runner(loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> asyncio.Runner:
    """Return a runner with its event loop, which has run.

    Raises:
        OSError: the system allows none: too many open files, or a refused call.
    """
    try:
        _try_calls()
    except OSError as error:
        raise _impossible(error.errno or 0) from None
    made = asyncio.Runner(loop_factory=loop_factory)
    # A loop that could not be made is destroyed incomplete: uvloop's destructor would log an error,
    # and that of asyncio, when the frames of the exception are gone, would print a traceback.
    hook, log = sys.unraisablehook, logging.getLogger("asyncio")
    log.disabled = True
    try:
        # uvloop watches its first descriptor when it runs. If that fails, it can neither run nor
        # be closed any more, and whatever tries hides the reason.
        _run_once(made.get_loop())
    except OSError as error:
        sys.unraisablehook = lambda _: None
        number = error.errno or 0
        del made  # destroyed before the log is back: what is raised below holds this frame
    else:
        return made
    finally:  # the exception is gone by now, with its context and all their frames
        sys.unraisablehook, log.disabled = hook, False
    limit = " (sysctl fs.epoll.max_user_watches)" if number == errno.ENOSPC else ""
    raise _impossible(number, limit)


def _impossible(number: int, limit: str = "") -> OSError:
    return OSError(number, f"an event loop cannot be made: {os.strerror(number)}{limit}")


def _try_calls() -> None:
    """Make the calls by which threads and signals wake a loop.

    A loop is made without them, or ignores their errors, and then sleeps, or reports an error in
    each iteration.
    """
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        one.send(b"\0")
        other.recv(1)
        if sys.platform != "win32":
            os.get_blocking(one.fileno())


def _run_once(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()
