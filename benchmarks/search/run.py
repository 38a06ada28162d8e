"""The first page of searches in a room of a million messages, beside chat: ``make bench-search``.

A relay with two workers at about half of what saturates it: a room of 500 members with 1000
messages a second, and another one in which people say 100 texts a second, which are indexed
meanwhile. Searches are asked of the worker that is not the home of the large room, one after the
other, on a schedule; each delay counts from when it was due.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import tempfile
import time
from ctypes import c_uint64
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.load import background, payload
from benchmarks.load.background import Background
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays
from benchmarks.search.archive import Archive, fill, text
from benchmarks.servers.relay import MeasuredRelay
from relay.wire.envelopes import Error, Found, Search, Send
from tests.support.raw import RawClient

WORKERS: Final = 2
EVERY_S: Final = 0.05
TEXTS_PER_S: Final = 100.0
QUERIES: Final = {
    "a rare word": "w19000",
    "a common word": "w1",
    "two common words": "w1 w2",
    "a common and a rare one": "w1 w15000",
    "two that never meet": "w18001 w18002",
    "a phrase of common ones": '"w1 w2 w3"',
    "a word that nobody said": "nobody",
    "five common words": "w1 w2 w3 w4 w5",
}


class Measured(NamedTuple):
    """What was seen."""

    archive: Archive
    load: dict[str, float]
    """Per second."""
    server_share: float
    """CPU time of all the server's processes, of all cores."""
    delays: dict[str, Delays]
    pages: dict[str, int]
    """How many pages a search took to find 50 messages, or that there are no more."""


def say_texts(done: c_uint64, port: int, log: str, rate: float) -> None:
    """Send texts on a schedule; count them."""
    chance = random.Random(2)
    speaker = RawClient(machine.HOST, port, "talker")
    began = time.monotonic()
    while True:
        time.sleep(max(began + done.value / rate - time.monotonic(), 0))
        done.value += 1
        speaker.send_envelopes(Send(log, done.value, 0, "text/plain", text(chance).encode()))
        if done.value % 100 == 0:
            speaker.read()


def measure(
    data: Path, messages: int, seconds: float, members: int = 500, rate: float = 1000.0
) -> Measured:
    """Create a room, load the relay, and search.

    Args:
        data: for the relay's data; must not exist.
        messages: of the room.
        seconds: how long.
        members: of the room beside.
        rate: messages a second to them.
    """
    with MeasuredRelay(data, workers=WORKERS, cores=machine.ALL_CORES) as server:
        large = server.log_at_home_on(0, "archive")  # the first start makes the keys
    archive = fill(data, large, messages)
    settings = {"server.keepalive_s": 3600}  # members that only count answer no ping
    with (
        MeasuredRelay(data, workers=WORKERS, cores=machine.ALL_CORES, settings=settings) as server,
        contextlib.ExitStack() as stack,
    ):
        hall, chat = server.log_at_home_on(0, "hall"), server.log_at_home_on(1, "chat")
        swarm = stack.enter_context(
            Swarm(server.join(hall), members, sample=1, niceness=background.NICENESS)
        )
        swarm.begin(1)
        works = {
            "messages": Background(background.speak, server.port, hall, rate, payload.SIZE_BYTES),
            "texts": Background(say_texts, server.port, chat, TEXTS_PER_S),
        }
        for work in works.values():
            stack.enter_context(work)
        while not all(work.done for work in works.values()):
            time.sleep(0.05)
        asker = server.member_on(1, large, "asker")
        stack.callback(asker.close)
        before = {name: work.done for name, work in works.items()}
        cpu_s, began = server.processes(), time.monotonic()
        delays = _search(asker, large, seconds)
        elapsed_s = time.monotonic() - began
        share = (server.processes() - cpu_s) / elapsed_s / len(machine.ALL_CORES)
        load = {name: (work.done - before[name]) / elapsed_s for name, work in works.items()}
        load["deliveries"] = load["messages"] * members
        pages = {name: _pages(asker, large, words) for name, words in QUERIES.items()}
        return Measured(archive, load, share, delays, pages)


def _search(asker: RawClient, log: str, seconds: float) -> dict[str, Delays]:
    delays = {name: Delays() for name in QUERIES}
    began_ns, number = time.monotonic_ns(), 0
    while (due_ns := began_ns + int(number * EVERY_S * 1e9)) < began_ns + seconds * 1e9:
        time.sleep(max((due_ns - time.monotonic_ns()) / 1e9, 0))
        name, words = list(QUERIES.items())[number % len(QUERIES)]
        number += 1
        _page(asker, number, log, words, 0)
        delays[name].record_ns(time.monotonic_ns() - due_ns)
    return delays


def _pages(asker: RawClient, log: str, words: str) -> int:
    count, found, before, end = 0, 0, 0, False
    while not end and found < 50:
        page = _page(asker, 100_000 + count, log, words, before)
        count, found = count + 1, found + len(page.entries)
        before, end = page.next, page.end
    return count


def _page(asker: RawClient, number: int, log: str, words: str, before: int) -> Found:
    asker.send_envelopes(Search(number, log, words, before, 50))
    answer = asker.wait(lambda one: isinstance(one, Found | Error) and one.request == number)
    if not isinstance(answer, Found):
        raise ConnectionError(f"refused: {answer}")
    return answer


def lines(measured: Measured) -> list[str]:
    """Return the figures for people."""
    archive, every = measured.archive, Delays()
    load = ", ".join(f"{name} {value:,.0f}/s" for name, value in measured.load.items())
    found = [
        (
            f"{archive.messages:,} messages, {archive.partition_bytes >> 20} MiB; their index: "
            f"{archive.index_bytes >> 20} MiB, made in {archive.index_s:.0f} s"
        ),
        f"{load}; server: {measured.server_share:.0%} of {len(machine.ALL_CORES)} cores",
        "| search | p50 ms | p99 ms | longest ms | n | pages |",
        "|---|---|---|---|---|---|",
    ]
    for delays in measured.delays.values():
        every.add(delays.encode())
    rows = [*measured.delays.items(), ("all", every)]
    for name, delays in rows:
        figures = delays.figures()
        shown = " | ".join(f"{figures[key] / 1000:.1f}" for key in ("p50_us", "p99_us", "max_us"))
        found.append(f"| {name} | {shown} | {figures['n']:,.0f} | {measured.pages.get(name, '')} |")
    return found


def main() -> int:
    """Measure, print, and return 0: nothing is judged."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relay-search-") as directory:
        measured = measure(Path(directory, "data"), given.messages, given.seconds)
    print("\n".join(lines(measured)))
    if given.json is not None:
        figures = {name: delays.figures() for name, delays in measured.delays.items()}
        facts = {"machine": machine.describe(), "archive": measured.archive._asdict()}
        given.json.write_text(json.dumps(facts | {"searches": figures}, indent=1) + "\n")
    return 0
