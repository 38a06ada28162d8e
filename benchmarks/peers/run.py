"""Measure Relay beside its peers and the kernel floor: ``make bench-peers``.

    python -m benchmarks.peers [--rounds 3] [--members 1000] [--only NAME ...] [--out FILE]

A round gives each contender its turn, so that all see the machine's good and bad minutes alike. In
its turn a contender is started, gets its members, carries every load, and is stopped. All servers
are pinned to the same core, publisher and members to the others. The result is one JSON file, from
which ``python -m benchmarks.report`` makes the tables and charts of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.load.fanout import Fanout, Figures, Offered, WrongServer
from benchmarks.load.publishers import RoomsPublisher
from benchmarks.load.swarm import Swarm, SwarmError
from benchmarks.measure import machine
from benchmarks.peers import lone
from benchmarks.peers.contenders import COMPILED, FLOOR, RELAY, Contender, Running, contenders
from benchmarks.peers.tls import KeyKind, certificate, one_suite
from benchmarks.report.page import RESULTS
from relay import __version__

SATURATED: Final = Offered(0, 1, 3)
LOADS: Final = (
    Offered(30, 1, 4),
    Offered(100, 1, 4),
    Offered(300, 1, 3),
    Offered(1000, 1, 3),
    Offered(1000, 10, 3),
    SATURATED,
    Offered(0, 64, 3),
)
SAMPLE: Final = 5
LOBBY: Final = "lobby"
HALF: Final = "half of its own saturated rate"
"""The last load of a turn: what one message waits on a server that is busy, not overloaded."""
HALF_SECONDS: Final = 3.0
ROOM_MEMBERS, ROOM_RATE = 10, 5.0
FAILURES: Final = (WrongServer, SwarmError, OSError, RuntimeError)
"""What a server that breaks or loses messages may cause; the others still get their turn."""
INSIDE: Final = "RELAY_BENCH_PEERS"
"""Set to the directory of its files in the process that measures."""
CONNECTIONS_P256: Final = 300


def main() -> int:
    """Run it in a process whose TLS knows one suite; return the exit code."""
    if INSIDE in os.environ:
        return _measure(_options(), Path(os.environ[INSIDE]))
    _options()
    with tempfile.TemporaryDirectory(prefix="relay-peers-") as name:
        environment = {**os.environ, **one_suite(Path(name)), INSIDE: name}
        command = [sys.executable, "-m", "benchmarks.peers", *sys.argv[1:]]
        return subprocess.run(command, env=environment, check=False).returncode


def _measure(options: argparse.Namespace, directory: Path) -> int:
    os.sched_setaffinity(0, machine.LOAD_CORES)
    found, missing = contenders(certificate(directory, "rsa3072"), __version__)
    if options.only:
        found = [one for one in found if one.name in options.only]
    for absent in missing:
        print(f"skipped: {absent} is not installed", flush=True)
    results: dict[str, dict[str, Any]] = {
        one.name: {
            "version": one.version,
            "encryption": one.encryption,
            "durability": one.durability,
            "turns": [],
        }
        for one in found
    }
    failures: list[str] = []
    for number in range(options.rounds):
        for one in found:
            print(f"round {number + 1}/{options.rounds}: {one.name}", flush=True)
            place = directory / f"{number}-{_file(one.name)}"
            try:
                turn = _turn(one, place, options.members, failures)
            except FAILURES as error:
                failures.append(f"{one.name}: {error}")
                print(f"  failed: {error}", file=sys.stderr, flush=True)
                continue
            results[one.name]["turns"].append(turn)
        _save(options, number + 1, results, missing, failures)  # whole rounds outlive a Ctrl-C
    for one in found:
        if one.name not in (RELAY, COMPILED, FLOOR, "NATS plain") and results[one.name]["turns"]:
            try:
                cost = _connect_cost(one.name, directory, "p256")
            except FAILURES as error:
                failures.append(f"{one.name}, P-256: {error}")
                continue
            results[one.name]["connect_p256_us"] = cost
    _save(options, options.rounds, results, missing, failures)
    return 1 if failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _turn(one: Contender, directory: Path, members: int, failures: list[str]) -> dict[str, Any]:
    """Measure one server in a round. A load at which it fails is its last one in this turn."""
    directory.mkdir()
    with one.start(directory, members) as running:
        if one.warm_up:
            with Swarm(running.join("warm", LOBBY), one.warm_up, sample=1):
                running.processes.refresh()
        # The floor knows no end of its members before all of them are there.
        alone = lone.lone(running, LOBBY) if one.warm_up else {}
        memory, cpu_s = running.processes.memory(), running.processes()
        with (
            Swarm(running.join("member", LOBBY), members, sample=SAMPLE) as swarm,
            contextlib.closing(running.publisher(LOBBY)) as publisher,
        ):
            connect_us = (running.processes() - cpu_s) / members * 1e6
            grown = running.processes.memory()["pss"] - memory["pss"]
            fanout = Fanout(publisher, swarm, running.processes, one.window)
            loads: dict[str, dict[str, Any]] = {}
            for offered in LOADS:
                if offered.rate > one.rate_max:
                    continue
                try:
                    fanout.begin()
                    figures = fanout.run(offered)
                except FAILURES as error:
                    failures.append(f"{one.name}, {offered}: {error}")
                    print(f"  {offered!s:24} failed: {error}", file=sys.stderr, flush=True)
                    break
                loads[str(offered)] = figures.extra()
                print(_line(offered, figures), flush=True)
            full = loads.get(str(SATURATED))
            if full is not None:
                rate = full["deliveries_per_s"] / members / 2
                fanout.begin()
                figures = fanout.run(Offered(rate, 1, HALF_SECONDS))
                loads[HALF] = figures.extra() | {"rate": round(rate)}
                print(_line(HALF, figures), flush=True)
        if one.rooms:
            count = max(members // 5, 1)
            load = f"{count} rooms × {ROOM_MEMBERS}, {ROOM_RATE:g}/s each"
            figures = _rooms(running, count)
            loads[load] = figures.extra()
            print(_line(load, figures), flush=True)
    return {
        "connect_us": round(connect_us, 1),
        "memory_bytes_per_connection": round(grown / members),
        "lone": alone,
        "loads": loads,
    }


def _rooms(running: Running, count: int) -> Figures:
    """Measure many small rooms with a slow conversation each; return the figures."""
    rooms = tuple(f"room{number:03}" for number in range(count))
    with (
        Swarm(running.join("small", *rooms), len(rooms) * ROOM_MEMBERS, sample=4 * SAMPLE) as swarm,
        contextlib.closing(running.publisher(*rooms)) as sender,
    ):
        publisher = RoomsPublisher(sender, rooms, 0.95 / ROOM_RATE)
        fanout = Fanout(publisher, swarm, running.processes)
        fanout.begin()
        return fanout.run(Offered(ROOM_RATE, 1, 4))


def _line(offered: Offered | str, figures: Figures) -> str:
    return (
        f"  {offered!s:26} {figures.cpu_us_per_delivery:8.3f} µs"
        f" {figures.deliveries_per_s:12,.0f}/s"
        f"  kept up {figures.kept_up:4.2f}  load {figures.load_share:4.2f}"
        f"  p99 {figures.delays.figures().get('p99_us', 0) / 1000:8.1f} ms"
    )


def _file(name: str) -> str:
    return name.lower().replace(" ", "-")


def _connect_cost(name: str, directory: Path, kind: KeyKind) -> float:
    """Return a peer's CPU µs for one connection with another kind of key."""
    place = directory / f"{kind}-{_file(name)}"
    place.mkdir()
    others, _ = contenders(certificate(place, kind), __version__)
    one = next(other for other in others if other.name == name)
    with (
        one.start(place, CONNECTIONS_P256) as running,
        Swarm(running.join("warm", LOBBY), one.warm_up, sample=1),
    ):
        cpu_s = running.processes()
        with Swarm(running.join("member", LOBBY), CONNECTIONS_P256, sample=1):
            return round((running.processes() - cpu_s) / CONNECTIONS_P256 * 1e6, 1)


def _save(
    options: argparse.Namespace,
    rounds: int,
    results: dict[str, dict[str, Any]],
    missing: list[str],
    failures: list[str],
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    path: Path = options.out or RESULTS / f"peers-{now:%Y-%m-%d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "date": f"{now:%Y-%m-%d}",
        "command": "make bench-peers",
        "machine": machine.describe(),
        "filesystem": machine.filesystem(Path(tempfile.gettempdir())),
        "members": options.members,
        "rounds": rounds,
        "message_bytes": 200,
        "skipped": missing,
        "failures": failures,
        "results": results,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}", flush=True)
