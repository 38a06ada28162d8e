"""Makes event loops. A system that allows none is reported by one exception, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable


def runner(loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> asyncio.Runner:
    """Return a runner with its event loop.

    Raises:
        OSError: the system allows none: too many open files, or a refused call.
    """
    made = asyncio.Runner(loop_factory=loop_factory)
    # A loop that could not be made is destroyed incomplete: uvloop's destructor would log an error,
    # and that of asyncio, when the frames of the exception are gone, would print a traceback.
    hook, log = sys.unraisablehook, logging.getLogger("asyncio")
    log.disabled = True
    try:
        made.get_loop()
    except OSError as error:
        sys.unraisablehook = lambda _: None
        number = error.with_traceback(None).errno or 0
        raise OSError(number, f"an event loop cannot be made: {os.strerror(number)}") from None
    finally:
        sys.unraisablehook, log.disabled = hook, False
    return made
