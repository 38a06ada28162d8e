"""The acceptor by itself: what it tells the other workers."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import NoReturn

from relay.server.sources import Proxies
from relay.server.worker.process.acceptor import EXHAUSTED_PAUSE_S, Acceptor


class _Exhausted(socket.socket):
    """A listening socket of a process that has no descriptors left."""

    def accept(self) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")


class _Nobody:
    def closed(self) -> bool:
        return False

    def admit(self, peer: str, *, exhausted: bool = False) -> None:
        return None


async def test_a_worker_that_is_stopped_in_a_pause_says_no_more_that_it_accepts() -> None:
    """The others would leave all new connections to it, for it has the fewest."""
    loop = asyncio.get_running_loop()
    answers: list[bool] = []
    paused, over = asyncio.Event(), asyncio.Event()

    def accepting(yes: bool) -> None:
        answers.append(yes)
        if not yes:
            paused.set()

    with _Exhausted() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        acceptor = Acceptor(
            loop,
            (listener,),
            _Nobody(),
            proxies=Proxies(()),
            full_at=10,
            connections_max=10,
            least_loaded=lambda: None,
            accepting=accepting,
            counted=lambda _: None,
        )
        acceptor.start()
        client.connect(listener.getsockname())
        await paused.wait()
        acceptor.stop()
        loop.call_later(2 * EXHAUSTED_PAUSE_S, over.set)  # after the end of the pause
        await over.wait()
        assert answers == [True, False, False]
