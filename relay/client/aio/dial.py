"""Dialling for the asyncio client: resolves in a thread, and races a host's addresses."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from typing import Final, NamedTuple

from relay.client.address import Address
from relay.client.aio.thread import in_thread
from relay.client.candidates import AddressHistory, Candidate
from relay.client.dialling import (
    AllFailed,
    Pace,
    accepted,
    begins_as_relay,
    numeric,
    open_socket,
    resolve,
)
from relay.client.dialling import dial_tcp as dial_blocking

_RESOLVER_S: Final = 1.0
"""How much longer a dial in a thread may take: nothing else ends a resolver that hangs."""


class _Attempt(NamedTuple):
    """What became of one candidate."""

    candidate: Candidate
    opened: socket.socket
    is_relay: bool
    """False: a server of another protocol is its peer."""


async def dial_tcp(address: Address, timeout_s: float, history: AddressHistory) -> socket.socket:
    """Return a socket that is connected within ``timeout_s``. May be cancelled at any point.

    ``history`` decides about the order, and is told which address was chosen.

    Raises:
        OSError: no address could be reached (AllFailed), the time is over (TimeoutError), or the
            host has no address.
    """
    try:
        return await _race(address, timeout_s, history)
    except NotImplementedError:  # Windows' own cannot add_reader
        async with asyncio.timeout(timeout_s + _RESOLVER_S):
            return await _beside(address, timeout_s, history)


async def _beside(address: Address, timeout_s: float, history: AddressHistory) -> socket.socket:
    """Dial in a thread, as the blocking client does."""
    ending = threading.Lock()
    given_up = False
    late: list[socket.socket] = []

    def dial() -> socket.socket:
        opened = dial_blocking(address, timeout_s, history)
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


async def _race(address: Address, timeout_s: float, history: AddressHistory) -> socket.socket:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    known = numeric(address)
    if known is None:
        async with asyncio.timeout_at(deadline):
            known = await in_thread(lambda: resolve(address))
    waiting = deque(history.in_order(known))
    pace = Pace()
    alone = loop.create_future()
    failures: list[OSError] = []
    strangers: list[_Attempt] = []
    begun: set[asyncio.Task[_Attempt]] = set()
    racing: set[asyncio.Task[_Attempt]] = set()
    relays: list[_Attempt] = []
    chosen: _Attempt | None = None
    """None also if this ends with an exception, with relays or without."""
    try:
        while not relays and (waiting or racing):
            if waiting and not pace.pause_s(waiting[0], alone=not racing):
                pace.begun()
                task = asyncio.create_task(_connect(waiting.popleft(), alone))
                begun.add(task)
                racing.add(task)
            if not waiting and len(racing) == 1 and not alone.done():
                alone.set_result(None)
            left = deadline - loop.time()
            if left <= 0:
                if strangers:
                    break
                raise TimeoutError("timed out")
            pause = pace.pause_s(waiting[0], alone=False) if waiting else left
            done, racing = await asyncio.wait(
                racing, timeout=min(left, pause), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                pace.ended()
                error = task.exception()
                if isinstance(error, OSError):
                    failures.append(error)
                elif error is not None:
                    raise error
                else:
                    attempt = task.result()
                    (relays if attempt.is_relay else strangers).append(attempt)
        if not relays and not strangers:
            raise AllFailed(failures)
        chosen = (relays or strangers)[0]
        history.chosen(chosen.candidate)
        return accepted(chosen.opened)
    finally:
        # Several may have ended in the same iteration of the loop, however this one ends.
        for task in begun:
            if not task.done():
                task.add_done_callback(_close)
                task.cancel()
            elif chosen is None or not _returned(task, chosen):
                _close(task)


async def _connect(candidate: Candidate, alone: asyncio.Future[None]) -> _Attempt:
    """Return a connected socket.

    Waits until the peer has sent something, or until no other attempt is left.
    """
    opened = open_socket(candidate)
    try:
        await asyncio.get_running_loop().sock_connect(opened, candidate.address)
        if not alone.done() and await _readable(opened, alone):
            return _Attempt(candidate, opened, begins_as_relay(opened))
    except BaseException:
        opened.close()
        raise
    return _Attempt(candidate, opened, is_relay=True)


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


def _returned(task: asyncio.Task[_Attempt], attempt: _Attempt) -> bool:
    """Return whether an ended task has returned this attempt."""
    return not task.cancelled() and task.exception() is None and task.result() is attempt


def _close(task: asyncio.Task[_Attempt]) -> None:
    """Close what an ended task has connected, since another address was chosen, or none."""
    if not task.cancelled() and task.exception() is None:
        task.result().opened.close()
