"""Background load during a measurement: senders, logins and readers, each a process of low
priority.

Each is a function that runs until its process is ended, and counts what it does in shared memory.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import closing
from ctypes import c_uint64
from multiprocessing.sharedctypes import RawValue
from typing import Final, Self

import psutil

from benchmarks.load import payload, publishers
from benchmarks.load.publishers import RelayPublisher
from benchmarks.measure.machine import HOST
from relay import limits
from relay.client.blocking import BlockingClient
from relay.client.devices.device_key import DeviceKey
from relay.wire.envelopes import Error, Found, Join, Live, Search, Send
from tests.support.raw import RawClient

NICENESS: Final = 10
ENDLESS: Final = 1 << 62


class Background:
    """A process that does something until it is ended. A context manager."""

    def __init__(self, work: Callable[..., None], *args: object) -> None:
        """Start it: ``work(done, *args)``, importable, ``done.value`` counts."""
        spawn = multiprocessing.get_context("spawn")
        self._done = RawValue(c_uint64, 0)
        self._process = spawn.Process(target=_main, args=(work, self._done, args), daemon=True)
        self._process.start()

    def __enter__(self) -> Self:
        """Nothing to wait for."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        self._process.kill()
        self._process.join()

    @property
    def done(self) -> int:
        """How much it has done.

        Raises:
            RuntimeError: the process has ended by itself.
        """
        if not self._process.is_alive():
            raise RuntimeError(f"the load {self._process.name} has ended; its words are above")
        return self._done.value

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has used."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system


def _main(work: Callable[..., None], done: c_uint64, args: tuple[object, ...]) -> None:
    os.nice(NICENESS)
    work(done, *args)


def speak(done: c_uint64, port: int, log: str, rate: float, size: int) -> None:
    """Send messages on a schedule; count them."""

    def progress() -> int:
        done.value = publisher.acknowledged
        return ENDLESS  # it need not wait for members

    with closing(RelayPublisher(HOST, port, f"speaker-{log}", log)) as publisher:
        publishers.at_rate(publisher, 1, ENDLESS, rate, 1, progress, size=size)


def log_in(done: c_uint64, port: int, rate: float) -> None:
    """Log in and leave, each time as another client instance; count logins."""
    began = time.monotonic()
    for number in itertools.count():
        time.sleep(max(began + number / rate - time.monotonic(), 0))
        RawClient(HOST, port, "visitor", registered=number > 0).close()
        done.value += 1


def fill(port: int, log: str, count: int) -> None:
    """Give a log some history."""
    with closing(RelayPublisher(HOST, port, f"writer-{log}", log)) as publisher:
        for first in range(1, count + 1, 100):
            publisher.publish([payload.make(first + n, time.monotonic_ns()) for n in range(100)])
            publisher.drain()


def read_history(done: c_uint64, port: int, log: str, name: str, rest_s: float) -> None:
    """Join with all the history that a join may have, read until live, leave; count entries."""
    for number in itertools.count():
        with closing(RawClient(HOST, port, f"{name}-{number}")) as reader:
            reader.send_envelopes(Join(1, log, None, 0, limits.HISTORY_ON_JOIN_MAX))
            reader.wait(lambda envelope: isinstance(envelope, Live))
        done.value += limits.HISTORY_ON_JOIN_MAX
        time.sleep(rest_s)


def write_texts(done: c_uint64, port: int, log: str, rate: float) -> None:
    """Send texts, which are indexed, on a schedule; count them."""
    with closing(RawClient(HOST, port, "talker")) as speaker:
        began = time.monotonic()
        while True:
            time.sleep(max(began + done.value / rate - time.monotonic(), 0))
            done.value += 1
            text = f"word{done.value % 7} rare{done.value % 997}"
            speaker.send_envelopes(Send(log, done.value, 0, "text/plain", text.encode()))
            if done.value % 100 == 0:
                speaker.read()


def search(done: c_uint64, port: int, log: str, rate: float) -> None:
    """Search a log for a common word on a schedule; count first pages."""
    with closing(RawClient(HOST, port, "searcher")) as reader:
        reader.join(log)
        began = time.monotonic()
        for number in itertools.count(1):
            time.sleep(max(began + number / rate - time.monotonic(), 0))
            reader.send_envelopes(Search(number, log, f"word{number % 7}", 0, 50))
            reader.wait(
                lambda one, n=number: isinstance(one, Found | Error) and one.request == n  # type: ignore[misc]
            )
            done.value += 1


def export(done: c_uint64, address: str, rest_s: float) -> None:
    """Export all of one's own data, again and again; count what is found.

    All rooms are read for it, from their beginnings, and one's own are few of their messages.
    """
    with BlockingClient(
        address, name="exporter", key=DeviceKey.generate(), register=True
    ) as client:
        while True:
            for _ in client.export():
                done.value += 1
            time.sleep(rest_s)
