"""Storms beside live members: their delays before and during, and the cost for the server.

Rows 8, 9 and 10 of the targets, and clients that use up their budgets. Measures, judges nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load.background import Background
from benchmarks.load.crowd import Arrive, Crowd, Leave, Plan, Prepare, Settle, names
from benchmarks.load.swarm import Swarm
from benchmarks.load.talk import Talk
from benchmarks.measure import machine
from benchmarks.measure.latency import Delays
from benchmarks.measure.machine import HOST
from benchmarks.measure.memory_watch import MemoryWatch
from benchmarks.servers.relay import MeasuredRelay
from benchmarks.storm import hostile
from relay.chat.partition import PARTITIONS
from relay.limit_settings import Limits
from relay.server.worker.connection.budgets.token_bucket import BYTES_BURST_S

ROOM: Final = "hall"
SAMPLE: Final = 20
WORKERS: Final = 2
WAL_BYTES: Final = 8 << 20
"""Of each partition (docs/operations.md, "Budgets")."""
STRICT: Final[dict[str, object]] = {
    "limits.loopback_exempt": False,
    "limits.accounts_per_hour_per_source": 0,
}
"""Addresses of this machine are sources like all others; but each storm has thousands of new users.
"""
STORMS: Final = ("return", "resume", "few", "many", "spend-1", "spend-40", "spend-1000")
DELAYS: Final = ("calm", "burned", "storm")
DEADLINE_S: Final = 240.0
IDLE_LOOK_S: Final = 0.5
ARRIVAL_S: Final = 0.005
"""Between those who come for the first time, who register as well: that is no storm."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much of everything."""

    returning: int = 1000
    live: int = 100
    handshakes: int = 4000
    """Hostile ones, in ``seconds``."""
    sources: int = 1000
    rate: float = 20.0
    """Messages to the live members each second."""
    seconds: float = 10.0
    calm_s: float = 10.0


class Stage:
    """A relay with live members and a sender."""

    def __init__(self, server: MeasuredRelay, swarm: Swarm, talk: Talk, data: Path) -> None:
        self.server = server
        self.data = data
        self.talk = talk
        self.swarm = swarm

    def delays(self, talking: Callable[[], object]) -> dict[str, float]:
        """Return the live members' delays while messages are sent.

        Raises:
            AssertionError: a sampled subscriber misses a message or received a wrong one.
        """
        self.swarm.begin(self.talk.next)
        talking()
        report = self.swarm.settle(self.talk.next - 1, everybody=False, deadline_s=DEADLINE_S)
        assert not report.missing, report
        assert not report.wrong, report
        delays = Delays()
        delays.add(report.delays)
        return delays.figures()

    def compare(self, load: Load) -> dict[str, Any]:
        """Return their delays while nothing else happens, and beside who only burns CPU time.

        That is a process of the same priority as all who attack: what is more than beside it, the
        server has made them wait for others.
        """
        calm = self.delays(lambda: self.talk.for_seconds(load.calm_s, load.rate))
        with Background(hostile.burn) as burner:
            _until(lambda: burner.done)
            burned = self.delays(lambda: self.talk.for_seconds(load.calm_s, load.rate))
        return {"calm": calm, "burned": burned}


class Used:
    """Who has used the CPU time during a return."""

    def __init__(self, on: Stage, crowd: Crowd) -> None:
        self._clocks: dict[str, Callable[[], float]] = {
            "server": on.server.processes,
            "clients": crowd.cpu_s,
            "the others": lambda: on.swarm.cpu_s() + time.process_time(),
        }
        self._began_s = 0.0
        self._used: dict[str, float] = {}

    def begin(self) -> None:
        """The return begins."""
        self._began_s = time.monotonic()
        self._used = {who: clock() for who, clock in self._clocks.items()}

    def end(self) -> None:
        """All are back."""
        self._used = {who: clock() - self._used[who] for who, clock in self._clocks.items()}
        self._began_s = time.monotonic() - self._began_s

    def figures(self, returns: int) -> dict[str, float]:
        """Return milliseconds per return, and how much of the cores that is."""
        cores_s = self._began_s * len(machine.ALL_CORES)
        return {
            f"CPU of {who} per return, ms": round(1000 * used_s / returns, 2)
            for who, used_s in self._used.items()
        } | {"of all cores that time, %": round(100 * sum(self._used.values()) / cores_s)}


@contextmanager
def stage(load: Load, settings: dict[str, object] | None = None) -> Iterator[Stage]:
    """Set one up."""
    with tempfile.TemporaryDirectory(prefix="relay-storm-") as directory:
        data = Path(directory, "data")
        with (
            MeasuredRelay(
                data, workers=WORKERS, cores=machine.ALL_CORES, settings=settings
            ) as server,
            Swarm(server.join(ROOM), load.live, sample=min(SAMPLE, load.live)) as swarm,
            closing(server.publisher(ROOM, "speaker")) as publisher,
        ):
            on = Stage(server, swarm, Talk(publisher), data)
            on.delays(lambda: on.talk.flood(1))  # the room begins
            yield on


def returning(load: Load, *, tickets: bool) -> dict[str, Any]:
    """All clients lose their connections and return at once, while messages are sent."""
    with stage(load) as on:
        plan = Plan(
            (HOST, on.server.port), ROOM, names(load.returning), counting_after_live=True,
            tickets=tickets, niceness=10,
        )  # fmt: skip
        with Crowd(plan) as crowd:
            came = crowd.obey(Arrive(every_s=ARRIVAL_S))
            assert not came.missing, came
            crowd.obey(Leave())
            crowd.obey(Prepare())
            beside = on.compare(load)
            used = Used(on, crowd)

            def storm() -> None:
                used.begin()
                crowd.order(Arrive(since_ns=time.monotonic_ns()))
                on.talk.until(lambda: crowd.answered, load.rate, DEADLINE_S)
                used.end()

            during = on.delays(storm)
            arrived = crowd.answer()
            assert not arrived.missing, arrived
            answers = []

            def missing(last: int) -> int:
                answers.append(crowd.obey(Settle(last, 10.0)))
                return answers[-1].missing

            assert not on.talk.mark(missing), answers[-1]
            assert not answers[-1].wrong, answers[-1].wrong
    return {
        **beside,
        "storm": during,
        "all live again, s": round(arrived.elapsed_s, 2),
        "resumed by ticket": arrived.resumed - came.resumed,
        **used.figures(load.returning),
        "refused and tried again": arrived.losses - came.losses,
    }


def shaking(load: Load, sources: int) -> dict[str, Any]:
    """Hostile and half-open handshakes; then the figures of the storm are those of its seconds."""
    with stage(load, STRICT) as on:
        beside = on.compare(load)
        before_s = on.server.processes()
        with (
            MemoryWatch(on.server.worker_pids()) as memory,
            Background(
                hostile.shake, on.server.port, load.handshakes, load.seconds, sources
            ) as attack,
        ):
            _until(lambda: attack.done)
            during = on.delays(lambda: on.talk.for_seconds(load.seconds, load.rate))
            attempts = attack.done
        cpu_s = on.server.processes() - before_s
    slots = WORKERS * Limits().unauthenticated
    return {
        **beside,
        "storm": during,
        "attempts": attempts,
        "server CPU per attempt, ms": round(1000 * cpu_s / max(attempts, 1), 2),
        "memory": memory.figures(),
        "memory documented for all slots, MB": round(slots * 16_384 / 1e6, 1),
    }


def spending(load: Load, connections: int, sources: int) -> dict[str, Any]:
    """Connections that use up their budgets, from so many sources."""
    with stage(load, STRICT) as on:
        beside = on.compare(load)
        with (
            MemoryWatch(on.server.worker_pids()) as memory,
            Background(
                hostile.spend, on.server.port, connections, sources, f"spender{connections}-"
            ) as attack,
        ):
            _until(lambda: attack.done)
            disk, stored, began = _disk(on.data), attack.done, time.monotonic()
            used_s = attack.cpu_s
            during = on.delays(lambda: on.talk.for_seconds(load.seconds, load.rate))
            grown, stored = _disk(on.data) - disk, attack.done - stored
            elapsed_s = time.monotonic() - began
            share = (attack.cpu_s - used_s) / elapsed_s
        _until(lambda: _idle(on.server))  # what is left of the storm to do is not the program's
        with Background(hostile.use, share) as as_much:
            _until(lambda: as_much.done)
            used = on.delays(lambda: on.talk.for_seconds(load.seconds, load.rate))
    limits = Limits()
    a_second = min(
        connections * min(limits.send_bytes_per_s, limits.send_bytes_per_s_per_user),
        sources * WORKERS * limits.send_bytes_per_s_per_source,
    )
    return {
        **beside,
        "storm": during,
        "p99 beside who only uses as much CPU time as the spenders, ms": used["p99_us"] / 1000,
        "storm, times that": round(during["p99_us"] / used["p99_us"], 1),
        "CPU time of the spenders, of a core": round(share, 2),
        "stored": stored,
        "memory": memory.figures(),
        "memory documented, MB": round(
            (connections * 262_144 + WORKERS * (limits.received_mib << 20)) / 1e6, 1
        ),
        "disk, MB": round(grown / 1e6, 1),
        "disk documented, MB": round(
            (2 * a_second * (elapsed_s + BYTES_BURST_S) + PARTITIONS * WAL_BYTES) / 1e6, 1
        ),
        "bytes that may be sent in this time, burst included, MB": round(
            a_second * (elapsed_s + BYTES_BURST_S) / 1e6, 1
        ),
    }


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the attack does not begin")
        time.sleep(0.02)


def _idle(server: MeasuredRelay) -> bool:
    """Tell whether a server does next to nothing, looking for half a second."""
    before_s = server.processes()
    time.sleep(IDLE_LOOK_S)
    return server.processes() - before_s < IDLE_LOOK_S / 10


def _disk(data: Path) -> int:
    return sum(path.stat().st_size for path in data.rglob("*") if path.is_file())


def measure(storm: str, load: Load) -> dict[str, Any]:
    """Run one of ``STORMS``."""
    match storm:
        case "return" | "resume":
            return returning(load, tickets=storm == "resume")
        case "few" | "many":
            return shaking(load, 4 if storm == "few" else load.sources)
        case "spend-1000":
            return spending(load, load.sources, load.sources)
        case _:
            return spending(load, int(storm.removeprefix("spend-")), 1)


def lines(storm: str, found: dict[str, Any]) -> list[str]:
    """Return the figures of a storm for a person."""
    calm, burned, during = (found[key]["p99_us"] / 1000 for key in DELAYS)
    head = (
        f"{storm}: live members' p99 {calm:.1f} ms calm, {burned:.1f} ms beside a burner, "
        f"{during:.1f} ms in the storm: {during / calm:.1f} times calm, "
        f"{during / burned:.1f} times the burner"
    )
    rest = [f"  {key}: {value}" for key, value in found.items() if key not in DELAYS]
    return [head, *rest]


def main() -> int:
    """Measure, print, and return 0."""
    usual = Load()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storm",
        description="return, resume: all come back at once, by a full handshake or by ticket. few, "
        "many: half-open and hostile handshakes, of 4 sources or of many. spend-N: N connections "
        "that spend their budgets, of one source (1000: as many sources as --sources).",
    )
    parser.add_argument("storms", nargs="*", metavar="STORM", help=f"{', '.join(STORMS)} (all)")
    parser.add_argument("--returning", type=int, default=usual.returning, help="clients")
    parser.add_argument("--live", type=int, default=usual.live, help="members who are measured")
    parser.add_argument("--handshakes", type=int, default=usual.handshakes, help="hostile ones")
    parser.add_argument("--sources", type=int, default=usual.sources)
    parser.add_argument("--rate", type=float, default=usual.rate, help="messages per second")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of a storm")
    parser.add_argument("--calm", type=float, default=usual.calm_s, help="seconds before it")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    for storm in given.storms:
        if storm not in STORMS:
            parser.error(f"{storm!r} is none of {', '.join(STORMS)}")
    load = Load(
        given.returning, given.live, given.handshakes, given.sources, given.rate, given.seconds,
        given.calm,
    )  # fmt: skip
    everything: dict[str, Any] = {"machine": machine.describe()}
    for storm in given.storms or STORMS:
        everything[storm] = measure(storm, load)
        print("\n".join(lines(storm, everything[storm])), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(everything, indent=1) + "\n")
    return 0
