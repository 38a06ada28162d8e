"""A gate at which a process waits during an upgrade for what its predecessor still holds."""

from __future__ import annotations

import asyncio

from relay.server.boot import Boot


async def passed(gate_fd: int, boot: Boot, stop: asyncio.Event) -> bool:
    """Report that all is prepared, and wait. False: the process is to stop instead.

    Args:
        gate_fd: readable when it may continue; -1: it may at once.
        boot: where the process reports.
        stop: set when it is to stop.
    """
    if gate_fd < 0:
        return True
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(gate_fd, came.set)
    boot.prepared()
    waiting = [asyncio.ensure_future(event.wait()) for event in (came, stop)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(gate_fd)
        for one in waiting:
            one.cancel()
    return came.is_set() and not stop.is_set()
