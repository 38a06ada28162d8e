"""The end of a worker that has no memory left, where the system refuses more instead of killing it.

What ran into that was left half done: committed and not published, or half of it sent. To go on is
to serve nobody, and to look alive. So it ends at once, as the kernel would have ended it, and
another one takes its place: then nothing is lost, and nobody waits without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any, Final

EXIT_CODE: Final = 12
log = logging.getLogger("relay.worker")


def end_if_exhausted(error: BaseException | None) -> None:
    """Return if an error is another one; if it is that memory ran out, end this process."""
    if isinstance(error, MemoryError):
        with contextlib.suppress(Exception):  # a line needs memory, too
            log.error("memory_exhausted")
        os._exit(EXIT_CODE)


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what nobody has caught in a loop: its exception handler."""
    end_if_exhausted(context.get("exception"))
    loop.default_exception_handler(context)
