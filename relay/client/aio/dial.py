"""The asyncio client's way to dial: resolves beside the loop, and races a host's addresses."""

from __future__ import annotations

import asyncio
import socket
from collections import deque

from relay.client.address import Address
from relay.client.aio.thread import in_thread
from relay.client.dialling import (
    ATTEMPT_DELAY_S,
    AllFailed,
    Candidate,
    must_speak,
    numeric,
    open_socket,
    resolve,
)


async def dial_tcp(address: Address) -> socket.socket:
    """Return a connected socket. The caller sets the deadline, and may cancel at any point.

    Raises:
        OSError: no address could be reached (AllFailed), or the host has no address.
    """
    known = numeric(address)
    waiting = deque(await in_thread(lambda: resolve(address)) if known is None else known)
    several = len(waiting) > 1
    failures: list[OSError] = []
    racing: set[asyncio.Task[socket.socket]] = set()
    try:
        while waiting or racing:
            if waiting:
                racing.add(asyncio.create_task(_connect(waiting.popleft(), several)))
            done, racing = await asyncio.wait(
                racing,
                timeout=ATTEMPT_DELAY_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            won = None
            for attempt in done:
                error = attempt.exception()
                if error is None and won is None:
                    won = attempt.result()
                elif error is None:
                    attempt.result().close()
                elif isinstance(error, OSError):
                    failures.append(error)
                else:
                    raise error
            if won is not None:
                return won
    finally:
        for attempt in racing:
            attempt.add_done_callback(_close_late)
            attempt.cancel()
    raise AllFailed(failures)


async def _connect(candidate: Candidate, speaks: bool) -> socket.socket:
    """Return a connected socket; with ``speaks``, one on which the server has sent something."""
    opened = open_socket(candidate)
    try:
        await asyncio.get_running_loop().sock_connect(opened, candidate.address)
        if speaks:
            await _readable(opened)
            must_speak(opened)
    except BaseException:
        opened.close()
        raise
    return opened


async def _readable(opened: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(opened, _resolve_once, ready)
    try:
        await ready
    finally:
        loop.remove_reader(opened)


def _resolve_once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what was connected although another address has won."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
