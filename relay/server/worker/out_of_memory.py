"""Ends a worker that has run out of memory, if the system refuses memory instead of killing it.

An operation that fails in this way is left half done: committed and not published, or sent in part.
A worker that continued would serve nobody and look alive. So it exits immediately, as if the kernel
had killed it, and another one replaces it: nothing is lost, and no client waits in vain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any

from relay.server.system.resource_limits import OUT_OF_MEMORY

log = logging.getLogger("relay.worker")


def exit_if_out_of_memory(error: BaseException | None) -> None:
    """End this process if an error means that memory has run out; otherwise return."""
    if isinstance(error, MemoryError):
        with contextlib.suppress(Exception):  # logging needs memory, too
            log.error("memory_exhausted")
        os._exit(OUT_OF_MEMORY)


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle an exception that nothing else in an event loop handles."""
    exit_if_out_of_memory(context.get("exception"))
    loop.default_exception_handler(context)
