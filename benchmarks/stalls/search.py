"""Does anything block a worker's loop? ``python -m benchmarks.stalls --seconds 300``.

A relay with two workers, at about half of what saturates it: a room of 500 with 1000 messages a
second, fresh logins all the time, readers of 10,000 entries of history, and so many writes that
every partition in use is checkpointed again and again. Somebody searches a room in which people
talk, somebody else exports what is theirs, for which all rooms are read; and retention removes once
a minute what a room has beyond its newest messages. Each worker's loop is probed every 5 ms.

The load has low priority, so that the server has the CPUs when it wants them. A delay is still
compared with how long the worker was ready and waited for a CPU: that is the machine's doing. So it
is, as far as the loop sleeps, if another thread of the worker waited for one, which may have the
interpreter, or if the process that probes was late itself.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.load import background, payload
from benchmarks.load.background import Background
from benchmarks.load.idlers import Idlers
from benchmarks.load.swarm import Swarm
from benchmarks.measure import machine
from benchmarks.servers.relay import MeasuredRelay
from benchmarks.stalls.looks import summary
from benchmarks.stalls.prober import STALL_S, Prober, Stall, probe
from relay import limits
from relay.chat.partition import PARTITIONS
from relay.store.file.directory import DataDirectory
from tests.support.processes import Processes

WORKERS: Final = 2
IDLE_STEP: Final = 1000
"""Idle connections that log in at once."""
ROOM_FOR_OTHERS: Final = 1000
"""Connections, besides idle ones and members."""
NOTHING: Final = "nothing, for the process that probes slept"
"""It looks every few milliseconds at a worker that is late."""
NEAR_S: Final = 0.5
"""A checkpoint so close to a stall is named with it: it is looked for once a second."""
LARGE_BYTES: Final = 8192
METRICS_S: Final = 10.0
WAL_SEQUENCE: Final = slice(12, 16)
"""In a WAL file's header: how often it has started over (sqlite.org/fileformat2.html#walhdr)."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load beside the probes."""

    members: int = 500
    rate: float = 1000.0
    """Messages per second to the members."""
    large_rate: float = 50.0
    """Messages of 8 KiB per second, into a log of the other worker."""
    logins: float = 50.0
    """Per second."""
    readers: int = 4
    """Of history, each about once a second."""
    history: int = limits.HISTORY_ON_JOIN_MAX
    texts: float = 50.0
    """Per second, which are indexed; and a tenth as many searches."""
    export_rest_s: float = 1.0
    """Between two exports."""
    idle: int = 0
    """Connections besides, each in a room of its own, that do nothing but stay."""
    workers: int = WORKERS


@dataclass(frozen=True, slots=True)
class Collection:
    """A garbage collection of a worker."""

    ended_ns: int
    generation: int
    took_ns: int


@dataclass(slots=True)
class Findings:
    """What was seen."""

    began_ns: int
    seconds: float
    server_share: float
    """CPU time of all the server's processes, of all cores."""
    probers: list[Prober]
    done: dict[str, float]
    """What the load did, per second."""
    checkpoints: list[tuple[int, int]]
    """(when it was seen, partition)."""
    removed: int = 0
    """Messages, by retention."""
    collections: list[list[Collection]] = field(default_factory=list)
    """Of each worker; empty unless asked for."""

    def extra(self) -> dict[str, Any]:
        """Return the figures as JSON."""
        return {
            "seconds": round(self.seconds, 1),
            "server_share": round(self.server_share, 3),
            "load_per_s": {name: round(value, 1) for name, value in self.done.items()},
            "checkpoints": len(self.checkpoints),
            "removed": self.removed,
            "workers": [
                prober.delays.figures()
                | {
                    "stalls": len(prober.stalls),
                    "explained": sum(stall.explained for stall in prober.stalls),
                    "own": [self.words(worker, s) for s in prober.stalls if not s.explained],
                }
                for worker, prober in enumerate(self.probers)
            ],
            "collections": [_summary(collections) for collections in self.collections],
        }

    def lines(self) -> list[str]:
        """Return the figures for people."""
        load = ", ".join(f"{name} {value:,.0f}/s" for name, value in self.done.items())
        lines = [
            f"{self.seconds:.0f} s; {load}; {len(self.checkpoints)} checkpoints",
            f"retention has removed {self.removed:,} messages",
            f"server: {self.server_share:.0%} of {len(machine.ALL_CORES)} cores",
        ]
        for worker, prober in enumerate(self.probers):
            figures = prober.delays.figures()
            shown = "  ".join(
                f"{name.removesuffix('_us')} {figures[name] / 1000:.2f} ms"
                for name in ("p50_us", "p99_us", "p999_us", "max_us")
            )
            explained = sum(stall.explained for stall in prober.stalls)
            lines.append(f"worker {worker}: {shown}  ({figures['n']:,.0f} probes)")
            lines.append(
                f"    over {STALL_S * 1000:.0f} ms: {len(prober.stalls)}; of them "
                f"{explained} by waiting for a CPU"
            )
            lines += [f"    {self.words(worker, stall)}" for stall in prober.stalls]
        for worker, collections in enumerate(self.collections):
            lines.append(f"worker {worker}, garbage collections: {_summary(collections)}")
        return lines

    def words(self, worker: int, stall: Stall) -> str:
        """Say when a stall was, what of it was what, and what happened then."""
        second = (stall.began_ns - self.began_ns) / 1e9
        end_ns = stall.began_ns + stall.delay_ns
        causes = [
            f"gc of generation {one.generation}, {one.took_ns / 1e6:.1f} ms"
            for one in (self.collections[worker] if self.collections else [])
            if stall.began_ns <= one.ended_ns <= end_ns + one.took_ns
        ]
        causes += [
            f"checkpoint of partition {partition} about then"
            for seen_ns, partition in self.checkpoints
            if partition % len(self.probers) == worker
            and stall.began_ns - NEAR_S * 1e9 <= seen_ns <= end_ns + (1 + NEAR_S) * 1e9
        ]
        verdict = "waited for a CPU" if stall.explained else "ITS OWN"
        return (
            f"{verdict}: at {second:.2f} s, {stall.delay_ns / 1e6:.0f} ms ({stall.probes} probes): "
            f"ran {stall.ran_ns / 1e6:.0f}, waited {stall.waited_ns / 1e6:.0f}, neither "
            f"{stall.blocked_ns / 1e6:.0f}; the probe waited {stall.probe_waited_ns / 1e6:.0f} and "
            f"was late by {stall.probe_late_ns / 1e6:.0f}, other threads of the worker waited "
            f"{stall.others_waited_ns / 1e6:.0f}"
            + "".join(f"; {cause}" for cause in causes)
            + ("" if stall.explained else f"; seen: {summary(stall.looks) or NOTHING}")
        )


def _summary(collections: list[Collection]) -> dict[str, str]:
    """Return number and longest pause by generation."""
    found: dict[str, str] = {}
    for generation in range(3):
        took = sorted(one.took_ns / 1e6 for one in collections if one.generation == generation)
        if took:
            middle = took[len(took) // 2]
            found[f"gen {generation}"] = f"{len(took)}, median {middle:.2f}, max {took[-1]:.2f} ms"
    return found


class Checkpoints:
    """Sees from outside that a WAL has started over: its header says how often."""

    def __init__(self, data: Path) -> None:
        directory = DataDirectory(data)
        self._wals = [
            path.with_name(f"{path.name}-wal")
            for path in map(directory.partition_path, range(PARTITIONS))
        ]
        self._known = self._sequences()
        self.seen: list[tuple[int, int]] = []

    def look(self) -> None:
        """Note those that have started over since the last look."""
        now = self._sequences()
        for partition, sequence in now.items():
            if self._known.get(partition, sequence) != sequence:
                self.seen.append((time.monotonic_ns(), partition))
        self._known = now

    def _sequences(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for partition, path in enumerate(self._wals):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                found[partition] = file.read(WAL_SEQUENCE.stop)[WAL_SEQUENCE]
        return found


def find_stalls(data: Path, seconds: float, load: Load, *, collections: bool = False) -> Findings:
    """Load a relay, and probe it.

    Args:
        data: for the relay's data; must not exist.
        seconds: how long.
        load: what goes on beside.
        collections: note the workers' garbage collections (planted from outside).
    """
    faults = ",".join(["name-threads", *(["note-collections"] if collections else [])])
    settings = {
        "server.keepalive_s": 3600,  # members that only count answer no ping
        "server.max_connections": load.idle + load.members + ROOM_FOR_OTHERS,
        "retention.messages": load.history,
        "control.bind": "127.0.0.1:0",
    }
    with (
        MeasuredRelay(
            data, workers=load.workers, cores=machine.ALL_CORES, settings=settings, fault=faults
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        last = load.workers - 1
        hall, library = server.log_at_home_on(0, "hall"), server.log_at_home_on(last, "library")
        other, talk = server.log_at_home_on(last, "files"), server.log_at_home_on(0, "talk")
        idlers = server.join(*(f"idle{n}" for n in range(load.idle)), prefix="idler")
        for first in range(0, load.idle, IDLE_STEP):
            count = min(IDLE_STEP, load.idle - first)
            stack.enter_context(Idlers(idlers, first, count))
        background.fill(server.port, library, load.history)
        swarm = stack.enter_context(
            Swarm(server.join(hall), load.members, sample=1, niceness=background.NICENESS)
        )
        swarm.begin(1)
        probers = []
        for worker in range(load.workers):
            log = server.log_at_home_on(worker, "probe")
            client = server.client_on(worker, f"prober{worker}-")
            stack.callback(client.close)
            probers.append(Prober(client, log, server.pid_of(worker)))
            stack.callback(probers[-1].threads.close)
        port, size = server.port, payload.SIZE_BYTES
        works = {
            "messages": Background(background.speak, port, hall, load.rate, size),
            "large": Background(background.speak, port, other, load.large_rate, LARGE_BYTES),
            "logins": Background(background.log_in, port, load.logins),
            "texts": Background(background.write_texts, port, talk, load.texts),
            "searches": Background(background.search, port, talk, load.texts / 10),
            "exported": Background(background.export, server.address, load.export_rest_s),
        } | {
            f"reader {n}": Background(background.read_history, port, library, f"reader{n}", 1.0)
            for n in range(load.readers)
        }
        for work in works.values():
            stack.enter_context(work)
        while not all(work.done for work in works.values()):
            time.sleep(0.05)
        checkpoints = Checkpoints(data)
        before = {name: work.done for name, work in works.items()}
        processes: Processes = server.processes
        removed = _removed(server)
        cpu_s, began_ns = processes(), time.monotonic_ns()
        gc.collect()
        gc.disable()  # ours would look like theirs
        try:
            probe(probers, seconds, checkpoints.look)
        finally:
            gc.enable()
        elapsed_s = (time.monotonic_ns() - began_ns) / 1e9
        share = (processes() - cpu_s) / elapsed_s / len(machine.ALL_CORES)
        done = {name: (work.done - before[name]) / elapsed_s for name, work in works.items()}
        entries = sum(done.pop(name) for name in list(done) if name.startswith("reader"))
        done |= {"entries of history": entries, "deliveries": done["messages"] * load.members}
        return Findings(
            began_ns,
            elapsed_s,
            share,
            probers,
            done,
            checkpoints.seen,
            _removed(server) - removed,
            _collections(data, load.workers, began_ns) if collections else [],
        )


def _removed(server: MeasuredRelay) -> int:
    """Return how many messages retention has removed."""
    _, address = server.control()
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=METRICS_S) as answer:
        lines = answer.read().decode().splitlines()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if line.startswith("relay_retention_removed_total")
    )


def _collections(data: Path, workers: int, began_ns: int) -> list[list[Collection]]:
    """Return those of each worker since then: those at its start blocked nobody."""
    found: list[list[Collection]] = []
    for worker in range(workers):
        path = data.with_name(f"{data.stem}.fault.gc.{worker}")
        lines = path.read_text().splitlines() if path.exists() else []
        collections = [Collection(*map(int, line.split())) for line in lines]
        found.append([one for one in collections if one.ended_ns > began_ns])
    return found


def main() -> int:
    """Measure, print, and return 0: nothing is judged."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stalls")
    usual = Load()
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--members", type=int, default=usual.members)
    parser.add_argument("--rate", type=float, default=usual.rate, help="messages per second")
    parser.add_argument("--logins", type=float, default=usual.logins, help="per second")
    parser.add_argument("--readers", type=int, default=usual.readers, help="of history")
    parser.add_argument("--idle", type=int, default=0, help="connections besides (0)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"({WORKERS})")
    parser.add_argument("--collections", action="store_true", help="note garbage collections, too")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    load = Load(
        members=given.members, rate=given.rate, logins=given.logins, readers=given.readers,
        idle=given.idle, workers=given.workers,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="relay-stalls-") as directory:
        findings = find_stalls(
            Path(directory, "data"), given.seconds, load, collections=given.collections
        )
    print("\n".join(findings.lines()))
    if given.json is not None:
        facts = {"machine": machine.describe(), "cores": os.cpu_count()}
        given.json.write_text(json.dumps(facts | findings.extra(), indent=1) + "\n")
    return 0
