"""A whole server under attack, and an honest pair beside it: ``python -m tests.fuzz.server``.

Each scenario is an attack of ``attacks`` alone, or ``mix``, all of them at random. First the pair
talks alone, then beside processes that only burn CPU time, then while all attackers arrive (they
connect, and log in if the attack needs it), then during the attack. Printed: the latency of its
messages in each phase, how many times slower the slowest hundredth is than beside the burners, and
how long users who are removed during the attack stay connected (``revoked``). Checked: no message
of the pair is lost, duplicated or reordered, neither of the two is disconnected, and no worker is
killed or replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

from tests.fuzz.attacker import Orders
from tests.fuzz.attacks import ATTACKS
from tests.fuzz.honest import HonestPair
from tests.fuzz.outcome import CONNECTIONS_MAX, TITLES, Plan, Row, cells, markdown, part
from tests.fuzz.revoked import PutOut
from tests.support.burners import burners
from tests.support.cluster import ROOT, Relay
from tests.support.throwaway import throwaway_keys

MIX: Final = "mix"
WORKERS: Final = 2
PROCESS_S: Final = 60.0
"""For an attacker to begin or to end."""
ARRIVAL_MOST_S: Final = 15.0
"""For all of them to arrive; later arrivals count as a part of the attack."""
ALONE_S: Final = 5.0
"""For each attack alone, to find which of a mix violates the guarantee by itself."""
DEATHS: Final = frozenset({"child_killed", "child_exited", "worker_fenced", "boot_failed"})
"""Log events that no attack may cause."""
TURN_FIELD: Final = "turn_ms_max"
"""A server log line that has it reports its longest turn so far."""
TURN_CPU_FIELD: Final = "turn_cpu_ms_max"
"""Likewise, of CPU time alone."""
MEMORY: Final = "VmRSS:"
PEAK: Final = "VmHWM:"
"""Fields of /proc/PID/status: memory in use, and the most there was."""
RESET_PEAK: Final = "5"
"""Written to /proc/PID/clear_refs, begins ``PEAK`` anew (proc_pid_clear_refs(5))."""


# --- processes ------------------------------------------------------------------------------------
class Attackers:
    """The attacking processes. A context manager, which leaves no process behind."""

    def __init__(self, plan: Plan, port: int) -> None:
        share = plan.connections // plan.processes
        orders = [
            Orders(
                port,
                list(plan.attacks),
                share,
                plan.seed + number,
                plan.seconds + ARRIVAL_MOST_S + PROCESS_S,
            )
            for number in range(plan.processes)
        ]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.attacker", msgspec.json.encode(one).decode()],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            for one in orders
        ]
        self._arriving: asyncio.Task[None] | None = None

    def __enter__(self) -> Attackers:
        return self

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):
                    stream.close()

    async def begin(self) -> None:
        """Wait until all are ready, and start them."""
        for process in self._processes:
            assert process.stdout is not None
            line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PROCESS_S)
            if line != "ready\n":
                raise RuntimeError("an attacker could not begin; see its words above")
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        self._arriving = asyncio.create_task(self._arrive())

    async def _arrive(self) -> None:
        for process in self._processes:
            assert process.stdout is not None
            await asyncio.to_thread(process.stdout.readline)

    @property
    def arrived(self) -> bool:
        """True once all have arrived, or failed to."""
        return self._arriving is not None and self._arriving.done()

    async def end(self) -> dict[str, int]:
        """Stop them; return how often each attack was done."""
        total: dict[str, int] = {}
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        if self._arriving is not None:
            await asyncio.wait_for(self._arriving, PROCESS_S)
        for process in self._processes:
            assert process.stdout is not None
            text = await asyncio.wait_for(asyncio.to_thread(process.stdout.read), PROCESS_S)
            if not text:
                raise RuntimeError("an attacker failed; see its words above")
            for name, count in json.loads(text).items():
                total[name] = total.get(name, 0) + count
        return total


class Cores:
    """The CPU time that processes use while something is awaited."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._clocks = [psutil.Process(pid) for pid in pids]

    def _used_s(self) -> float:
        return sum(sum(clock.cpu_times()[:2]) for clock in self._clocks)

    async def during(self, work: Awaitable[list[float]]) -> tuple[list[float], float]:
        """Return a result, and how many cores they used on average until it was there."""
        began, used_s = time.monotonic(), self._used_s()
        result = await work
        return result, (self._used_s() - used_s) / (time.monotonic() - began)


# --- one run --------------------------------------------------------------------------------------
def memory(relay: Relay, field: str) -> int:
    """Return the sum of a field of all the server's processes below the supervisor, in bytes."""
    total = 0
    for child in relay.children():
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8").splitlines()
            total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))
    return total


def begin_peak(relay: Relay) -> None:
    """Forget the processes' highest memory use so far.

    The kernel keeps it. Looking at it again and again would take the pair's processor time, and
    only during the attack: nobody looks while the burners run.
    """
    for child in relay.children():
        with contextlib.suppress(OSError):
            Path(f"/proc/{child.pid}/clear_refs").write_text(RESET_PEAK, encoding="ascii")


def events(relay: Relay) -> Iterator[dict[str, object]]:
    """Yield the server's log lines."""
    for line in list(relay.log):
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def longest_turn_ms(log: Sequence[str], field: str = TURN_FIELD) -> float | None:
    """Return the longest turn that is in a server's log, or None if there is none."""
    told: list[float] = []
    for line in log:
        try:
            value = json.loads(line).get(field)
        except ValueError:
            continue
        if isinstance(value, int | float):
            told.append(value)
    return max(told, default=None)


async def attacked(plan: Plan, relay: Relay) -> Row:
    """Run a plan against a running server; it is not stopped here."""
    row = Row(plan)
    pair = HonestPair(relay.address)
    await pair.begin()
    out = PutOut(relay, relay.data) if plan.compare_s else None
    if out is not None:
        await out.begin()
    workers = set(relay.worker_pids())
    try:
        if plan.compare_s:
            row.calm = await pair.talk(plan.compare_s)
            with burners(plan.processes) as pids:
                talk = pair.talk(plan.compare_s)
                row.burned, row.burners_cores = await Cores(pids).during(talk)
        begin_peak(relay)
        before = memory(relay, MEMORY)
        with Attackers(plan, relay.port) as attackers:
            await attackers.begin()
            began = time.monotonic()
            latest = began + ARRIVAL_MOST_S
            row.arrival = await pair.talk_until(lambda due: attackers.arrived or due >= latest)
            row.arrival_s = time.monotonic() - began
            talk = pair.talk(plan.seconds)
            row.attacked, row.attackers_cores = await Cores(attackers.pids).during(talk)
            if out is not None:
                await out.measure()
                row.removed_s, row.disabled_s = out.removed_s, out.disabled_s
                row.findings += out.faults
            row.steps = await attackers.end()
        row.grown_mib = (memory(relay, PEAK) - before) / 2**20
        await pair.end()
        if out is not None:
            await out.end()
    finally:
        row.cut_off = bool(pair.faults)
        row.findings += pair.faults
    row.killed = len(workers - set(relay.worker_pids()))
    if row.killed:
        row.findings.append(f"{row.killed} workers are gone")
    seen: set[str] = set()
    for event in events(relay):
        name = str(event.get("message", event.get("event")))
        if (name in DEATHS or "exc_info" in event) and name not in seen:
            seen.add(name)
            row.findings.append(f"the server's log: {json.dumps(event)[:1500]}")
    if not row.begun:
        row.findings.append("no attack was done: the run proves nothing")
    return row


def run(plan: Plan) -> Row:
    """Run a plan against a new server; return the row."""
    with tempfile.TemporaryDirectory(prefix="relay-fuzz-") as folder:
        relay = Relay(Path(folder) / "data", workers=WORKERS, settings=plan.settings)
        try:
            with relay:
                row = asyncio.run(attacked(plan, relay))
                row.turn_ms = longest_turn_ms(relay.log)
                row.turn_cpu_ms = longest_turn_ms(relay.log, TURN_CPU_FIELD)
        finally:
            relay.kill()
    return row


def plan_of(name: str, seed: int, seconds: float, compare_s: float = 0.0) -> Plan:
    """Return the plan of a scenario."""
    attacks = tuple(ATTACKS) if name == MIX else (name,)
    return Plan(name, attacks, seed, seconds, compare_s)


# --- for the fuzzer -------------------------------------------------------------------------------
def mixes(seed: int, seconds: float) -> bool:
    """Mix attacks at random for a while; print the result. True: a guarantee was violated.

    Then each attack runs alone, to find which of them is enough.
    """
    began = time.monotonic()
    row = run(plan_of(MIX, seed, seconds))
    done = ", ".join(f"{count:,} {name}" for name, count in sorted(row.steps.items()))
    print(
        f"server: honest pair p50 {part(row.attacked, 0.5)} ms, p99 {part(row.attacked, 0.99)} ms,"
        f" {len(row.attacked):,} messages in {time.monotonic() - began:.0f} s;"
        f" longest turn {'not told' if row.turn_ms is None else f'{row.turn_ms:.0f} ms'}"
    )
    print(f"server: {done}", flush=True)
    if not row.findings:
        return False
    print(f"\nFINDING in a whole server, seed {seed}")
    for finding in row.findings:
        print(f"  {finding}")
    for name in ATTACKS:
        alone = run(plan_of(name, seed, ALONE_S))
        if alone.findings:
            print(f"  alone enough: python -m tests.fuzz.server --scenario {name} --seed {seed}")
    return True


def leave_nothing_behind() -> None:
    """Exit as by an exception when told to end, so that child processes are stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def main() -> int:
    """Parse the command line; return the exit status."""
    leave_nothing_behind()
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario", choices=[*ATTACKS, MIX], action="append", help="repeatable; default: all"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    parser.add_argument("--compare", type=float, default=5.0, help="seconds alone, and burning")
    parser.add_argument("--connections", type=int, default=CONNECTIONS_MAX)
    parser.add_argument("--processes", type=int, default=2, help="of attackers, and of burners")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--set", metavar="SECTION.KEY=VALUE", action="append", default=[])
    given = parser.parse_args()
    if not 1 <= given.processes <= given.connections <= CONNECTIONS_MAX:
        parser.error(f"1 to {CONNECTIONS_MAX} connections, one for each process at least")
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"seed {seed}\n")
    print(markdown(TITLES))
    print(markdown(["---"] * len(TITLES)), flush=True)
    broken: list[Row] = []
    for name in given.scenario or [*ATTACKS, MIX]:
        plan = plan_of(name, seed, given.seconds, given.compare)
        plan = Plan(
            plan.name,
            plan.attacks,
            seed,
            plan.seconds,
            plan.compare_s,
            given.connections,
            given.processes,
            dict(pair.split("=", 1) for pair in given.set),
        )
        row = run(plan)
        print(markdown(cells(row)), flush=True)
        if row.findings:
            broken.append(row)
    for row in broken:
        print(f"\n{row.plan.name}: {ATTACKS[row.plan.name].what if row.plan.name != MIX else MIX}")
        for finding in row.findings:
            print(f"  {finding}")
    return 1 if broken else 0


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
