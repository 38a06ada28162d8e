"""Connections that send as fast as their messages are acknowledged, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import select
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection as Pipe
from typing import Final

import msgpack

from benchmarks.load import payload
from benchmarks.measure import machine
from benchmarks.measure.machine import HOST
from relay import codec
from relay.chat.partition import PARTITIONS, partition_of
from relay.wire.envelopes import Op
from tests.support.raw import RawClient

PER_WRITE: Final = 100
WINDOW: Final = 1000
CONNECTIONS: Final = 8
PROCESSES: Final = 2


def log_in_each_partition() -> list[str]:
    """Return the names of as many logs as there are partitions, each in one of its own."""
    by_partition = {partition_of(name): name for name in (f"room{n}" for n in range(1000))}
    assert len(by_partition) == PARTITIONS
    return list(by_partition.values())


def flood(port: int, logs: Sequence[str], seconds: float, name: str) -> int:
    """Let connections send to these logs, one log each; return how many messages were accepted.

    Args:
        port: of the relay.
        logs: there are at least ``CONNECTIONS`` connections, and one for each log.
        seconds: how long they send.
        name: what the names of the connections begin with.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes: list[Pipe] = []
    processes = []
    for index in range(PROCESSES):
        ours, theirs = spawn.Pipe()
        arguments = (theirs, port, logs, seconds, f"{name}process{index}")
        process = spawn.Process(target=_publish, args=arguments, daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("go")
    accepted = sum([int(pipe.recv()) for pipe in pipes])
    for process in processes:
        process.join()
    return accepted


class Flood:
    """One connection that keeps its window full, at little cost to itself.

    It checks that every message is acknowledged, once and in order, but not each ACK's form: the
    load must not be the limit, and the correctness of an ACK is the tests' concern.
    """

    def __init__(self, port: int, name: str, log: str, bodies: list[bytes]) -> None:
        self._client = RawClient(HOST, port, name)
        self._log = log
        self._bodies = bodies
        self._sent = 0
        self.acknowledged = 0

    def fileno(self) -> int:
        """Of its socket, for ``select``."""
        return self._client.socket.fileno()

    @property
    def open(self) -> bool:
        """True while something is not acknowledged."""
        return self.acknowledged < self._sent

    def fill(self) -> None:
        """Send what the window takes: ``PER_WRITE`` messages in a record and a write."""
        log, sent = self._log, self._sent
        while sent + PER_WRITE - self.acknowledged <= WINDOW:
            messages = enumerate(self._bodies, sent + 1)
            packed = [codec.pack((4, log, number, 0, "", body)) for number, body in messages]
            self._client.send_content(b"".join(packed))
            sent += PER_WRITE
        self._sent = sent

    def take(self) -> None:
        """Block for one read of acknowledgements."""
        for content in self._client.read_contents():
            acks = msgpack.Unpacker()
            acks.feed(content)
            for op, _, counter, _, _ in acks:
                if op != Op.ACK or counter != self.acknowledged + 1:
                    raise ConnectionError(f"{op} {counter} after {self.acknowledged}")
                self.acknowledged = counter

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()


def _publish(pipe: Pipe, port: int, logs: Sequence[str], seconds: float, name: str) -> None:
    os.sched_setaffinity(0, machine.ALL_CORES)
    bodies = [payload.make(n, time.monotonic_ns()) for n in range(PER_WRITE)]
    floods = [
        Flood(port, f"{name}-{each}", logs[each % len(logs)], bodies)
        for each in range(max(CONNECTIONS, len(logs)) // PROCESSES)
    ]
    pipe.send("ready")
    pipe.recv()
    deadline = time.monotonic() + seconds
    for flood in floods:
        flood.fill()
    while time.monotonic() < deadline:
        for flood in select.select(floods, [], [], 0.1)[0]:
            flood.take()
            flood.fill()
    accepted = sum(flood.acknowledged for flood in floods)
    for flood in floods:
        while flood.open:
            flood.take()
        flood.close()
    pipe.send(accepted)
