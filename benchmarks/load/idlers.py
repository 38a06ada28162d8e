"""A process of connections that follow a room each and do nothing but stay alive.

A relay pings a client after 30 s of silence. Here each client pings a little before that, all of
them evenly spread over time, and the relay answers: as many records as with its own pings, and a
window of two seconds shows their share of the cost.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from multiprocessing.connection import Connection as Pipe
from typing import Final, Self

from benchmarks.load.spawned import Spawned
from benchmarks.load.subscribers import Join
from benchmarks.load.swarm import CONNECT_S
from benchmarks.measure import machine

PERIOD_S: Final = 25.0
DISCARD_BYTES: Final = 1 << 20


def _main(pipe: Pipe, join: Join, first: int, count: int) -> None:
    os.sched_setaffinity(0, machine.LOAD_CORES)
    try:
        _stay(pipe, join, first, count)
    except OSError as error:
        with contextlib.suppress(BrokenPipeError):
            pipe.send(f"{type(error).__name__}: {error}")


def _stay(pipe: Pipe, join: Join, first: int, count: int) -> None:
    epoll = select.epoll()
    members = [join(index) for index in range(first, first + count)]
    sockets = {one.socket.fileno(): one.socket for one in members}
    for fileno in sockets:
        epoll.register(fileno, select.EPOLLIN)
    epoll.register(pipe.fileno(), select.EPOLLIN)
    pipe.send("")
    discard = bytearray(DISCARD_BYTES)
    step_s = PERIOD_S / count
    due, turn = time.monotonic(), 0
    while True:
        for fileno, _ in epoll.poll(max(due - time.monotonic(), 0)):
            if fileno == pipe.fileno():
                return
            if not sockets[fileno].recv_into(discard, DISCARD_BYTES, socket.MSG_TRUNC):
                raise ConnectionError("the server closed an idle connection")
        if time.monotonic() >= due:
            members[turn % count].refresh()
            due, turn = due + step_s, turn + 1


class Idlers(Spawned):
    """The idle connections as their owner sees them. A context manager: there inside, gone after.

    Raises:
        ConnectionError: they could not connect, or one was closed.
    """

    def __init__(self, join: Join, first: int, count: int) -> None:
        """Start connecting numbers ``first`` to (not including) ``first + count`` of a swarm."""
        super().__init__(_main, join, first, count)

    def __enter__(self) -> Self:
        """Wait until all are connected."""
        if not self._pipe.poll(CONNECT_S):
            raise ConnectionError("the idle connections are not there")
        self._listen()
        return self

    def check(self) -> None:
        """Make sure that all are still connected."""
        if self._pipe.poll(0):
            self._listen()

    def _listen(self) -> None:
        try:
            said = self._pipe.recv()
        except EOFError:
            said = "their process ended"
        if said:
            raise ConnectionError(said)
