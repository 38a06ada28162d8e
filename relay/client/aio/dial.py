"""Dialling for the asyncio client: resolves in a thread, and races a host's addresses."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque

from relay.client.address import Address
from relay.client.aio.thread import in_thread
from relay.client.dialling import (
    ATTEMPT_DELAY_S,
    AllFailed,
    Candidate,
    accepted,
    begins_as_relay,
    numeric,
    open_socket,
    resolve,
)
from relay.client.dialling import dial_tcp as dial_blocking
from relay.client.options import DIAL_S


async def dial_tcp(address: Address) -> socket.socket:
    """Return a connected socket. The caller sets the deadline, and may cancel at any point.

    Raises:
        OSError: no address could be reached (AllFailed), or the host has no address.
    """
    try:
        return await _race(address)
    except NotImplementedError:  # Windows' own cannot add_reader
        return await _beside(address)


async def _beside(address: Address) -> socket.socket:
    """Dial in a thread, as the blocking client does."""
    ending = threading.Lock()
    given_up = False
    late: list[socket.socket] = []

    def dial() -> socket.socket:
        opened = dial_blocking(address, DIAL_S)
        with ending:
            if given_up:
                opened.close()
            late.append(opened)
        return opened

    try:
        return await in_thread(dial)
    except asyncio.CancelledError:
        with ending:
            given_up = True
            for opened in late:
                opened.close()
        raise


async def _race(address: Address) -> socket.socket:
    known = numeric(address)
    waiting = deque(await in_thread(lambda: resolve(address)) if known is None else known)
    alone = asyncio.get_running_loop().create_future()
    if len(waiting) == 1:
        alone.set_result(None)
    failures: list[OSError] = []
    strangers: list[socket.socket] = []
    racing: set[asyncio.Task[tuple[socket.socket, bool]]] = set()
    try:
        while waiting or racing:
            if waiting:
                racing.add(asyncio.create_task(_connect(waiting.popleft(), alone)))
            done, racing = await asyncio.wait(
                racing,
                timeout=ATTEMPT_DELAY_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            won = None
            for attempt in done:
                error = attempt.exception()
                if isinstance(error, OSError):
                    failures.append(error)
                    continue
                if error is not None:
                    raise error
                opened, usable = attempt.result()
                if not usable:
                    strangers.append(opened)
                elif won is None:
                    won = opened
                else:
                    opened.close()
            if won is not None:
                return accepted(won)
            if not waiting and len(racing) == 1 and not alone.done():
                alone.set_result(None)
        if strangers:
            return accepted(strangers.pop())
    finally:
        for opened in strangers:
            opened.close()
        for attempt in racing:
            attempt.add_done_callback(_close_late)
            attempt.cancel()
    raise AllFailed(failures)


async def _connect(candidate: Candidate, alone: asyncio.Future[None]) -> tuple[socket.socket, bool]:
    """Return a connected socket, and False if a server of another protocol is its peer.

    Waits until the peer has sent something, or until no other attempt is left.
    """
    opened = open_socket(candidate)
    try:
        await asyncio.get_running_loop().sock_connect(opened, candidate.address)
        if not alone.done() and await _readable(opened, alone):
            return opened, begins_as_relay(opened)
    except BaseException:
        opened.close()
        raise
    return opened, True


async def _readable(opened: socket.socket, alone: asyncio.Future[None]) -> bool:
    """Wait until there is something to read. False: no other attempt is left instead."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(opened, _resolve_once, ready)
    try:
        await asyncio.wait({ready, alone}, return_when=asyncio.FIRST_COMPLETED)
        return ready.done()
    finally:
        loop.remove_reader(opened)


def _resolve_once(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _close_late(attempt: asyncio.Task[tuple[socket.socket, bool]]) -> None:
    """Close a socket that was connected although another address has won."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[0].close()
