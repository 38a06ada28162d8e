"""The acceptor alone, and what it reports to the other workers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final, NoReturn

import pytest

from relay.server.sources import Proxies
from relay.server.worker.process.accepting.acceptor import (
    ACCEPTS_PER_PAUSE,
    EXHAUSTED_PAUSE_S,
    Acceptor,
    Gate,
)
from tests.support.cluster import DEADLINE_S

NO_PROXIES: Final = Proxies(())


class _Exhausted(socket.socket):
    """A listening socket of a process without free descriptors."""

    def accept(self) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")


class _Nobody:
    def closed(self) -> bool:
        return False

    def defers(self, *, few: bool) -> bool:
        return False

    def pause_s(self) -> float:
        return 0.0

    def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> None:
        return None


def _untold(_: bool) -> None:
    """Ignore whether the worker accepts."""


def accepts(
    listener: socket.socket,
    gate: Gate,
    *,
    proxies: Proxies = NO_PROXIES,
    connections_max: int = 10,
    accepting: Callable[[bool], None] = _untold,
    starting: Callable[[], int] = lambda: 0,
) -> Acceptor:
    """Return the acceptor of a single worker."""
    return Acceptor(
        asyncio.get_running_loop(),
        (listener,),
        gate,
        proxies=proxies,
        full_at=connections_max,
        connections_max=connections_max,
        least_loaded=lambda: None,
        starting=starting,
        accepting=accepting,
        counted=lambda _: None,
    )


async def test_a_worker_stopped_during_a_pause_no_longer_reports_that_it_accepts() -> None:
    """Otherwise the others would leave all new connections to it, for it has the fewest."""
    loop = asyncio.get_running_loop()
    said: list[bool] = []
    paused, over = asyncio.Event(), asyncio.Event()

    def accepting(yes: bool) -> None:
        said.append(yes)
        if not yes:
            paused.set()

    with _Exhausted() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        acceptor = accepts(listener, _Nobody(), accepting=accepting)
        acceptor.start()
        client.connect(listener.getsockname())
        await paused.wait()
        acceptor.stop()
        loop.call_later(2 * EXHAUSTED_PAUSE_S, over.set)  # after the pause would have ended
        await over.wait()
        assert said == [True, False, False]


async def test_a_worker_that_yields_leaves_connections_to_others_until_it_is_told() -> None:
    said: list[bool] = []
    met = asyncio.Event()

    class Meets(_Nobody):
        def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> None:
            met.set()

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        acceptor = accepts(listener, Meets(), accepting=said.append)
        acceptor.start()
        acceptor.yields(on=True)
        acceptor.yields(on=True)
        acceptor.ended()  # a connection of the acceptor's own: it frees no slot
        with socket.create_connection(listener.getsockname()), listener.dup() as same:
            waits = asyncio.Event()
            loop.add_reader(same, waits.set)
            async with asyncio.timeout(DEADLINE_S):
                await waits.wait()
            loop.remove_reader(same)
            await asyncio.sleep(0)  # other callbacks of that loop iteration have run
            assert not met.is_set()
            acceptor.yields(on=False)
            await met.wait()
        acceptor.stop()
        acceptor.yields(on=True)
        acceptor.yields(on=False)
        assert said == [True, False, True, False, False]


async def test_few_connections_are_accepted_between_two_pauses() -> None:
    """All are accepted in the end, some after each pause."""
    seen: list[str] = []
    done = asyncio.Event()
    count = 3 * ACCEPTS_PER_PAUSE

    class Rests(_Nobody):
        def pause_s(self) -> float:
            seen.append("rest")
            return 0.001

        def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> None:
            seen.append("admitted")
            if seen.count("admitted") == count:
                done.set()

    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.setblocking(False)
        for _ in range(count):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        acceptor = accepts(listener, Rests(), connections_max=count + 1)
        acceptor.start()
        await done.wait()
        acceptor.stop()
    batches = "".join(one[0] for one in seen).split("r")
    assert max(map(len, batches)) == ACCEPTS_PER_PAUSE


async def test_new_connections_wait_in_the_backlog_while_they_are_deferred() -> None:
    """They are accepted when those before them are done."""
    looks = 0
    met = asyncio.Event()

    class Holds(_Nobody):
        def defers(self, *, few: bool) -> bool:
            nonlocal looks
            looks += 1
            return looks < 4

        def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> None:
            assert looks >= 4
            met.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        acceptor = accepts(listener, Holds())
        acceptor.start()
        with socket.create_connection(listener.getsockname()):
            async with asyncio.timeout(DEADLINE_S):
                await met.wait()
        acceptor.stop()


async def test_few_are_accepted_while_another_worker_starts() -> None:
    """The rest waits in the backlog for that worker, but not for ever; each one is waited for."""
    said: list[bool] = []
    met = asyncio.Event()
    generation = 7

    class Asked(_Nobody):
        def defers(self, *, few: bool) -> bool:
            said.append(few)
            return few

        def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> None:
            met.set()

    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.setblocking(False)
        acceptor = accepts(listener, Asked(), starting=lambda: generation)
        acceptor.start()
        for generation in (7, 8, 0):
            met.clear()
            said.clear()
            stack.enter_context(socket.create_connection(listener.getsockname()))
            async with asyncio.timeout(DEADLINE_S):
                await met.wait()
            assert (said[0], said[-1]) == (generation > 0, False)
        acceptor.stop()


async def test_proxies_that_are_silent_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not known to admission yet, and must not block others."""
    monkeypatch.setattr("relay.server.worker.process.accepting.acceptor.PROXY_HEADER_S", 600.0)
    loop = asyncio.get_running_loop()
    met = asyncio.Event()

    class Meets(_Nobody):
        def admit(self, peer: str, *, proxied: bool = False, exhausted: bool = False) -> None:
            met.set()

    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.setblocking(False)
        acceptor = accepts(listener, Meets(), proxies=Proxies(("127.0.0.0/8",)), connections_max=3)
        acceptor.start()
        silent = [
            stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(3)
        ]
        async with asyncio.timeout(DEADLINE_S):
            while acceptor.count < 3:
                await asyncio.sleep(0)
        speaking = stack.enter_context(socket.create_connection(listener.getsockname()))
        speaking.sendall(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00")  # LOCAL: no address
        async with asyncio.timeout(DEADLINE_S):
            await met.wait()
        silent[0].setblocking(False)
        async with asyncio.timeout(DEADLINE_S):
            assert await loop.sock_recv(silent[0], 1) == b""
        acceptor.stop()
        await acceptor.adopted()
