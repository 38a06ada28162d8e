"""A saturated server, and the history checker: ``python -m tests.torture.saturated``.

Nothing is killed here: the torture does that, at a low rate. Here senders keep their windows full
into several rooms, one of them hot, while members on every worker get everything, some join late
with history, and some disconnect repeatedly and resume. Their records are checked by the torture's
checker, room by room, so that memory holds one room per core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from relay.chat.entries import NO_EPOCH
from relay.wire.envelopes import EntryMessage, Join, Live
from tests.support.loaded import loader
from tests.support.processes import Processes, scheduled
from tests.support.raw import RawClient
from tests.support.throwaway import throwaway_keys
from tests.torture import audience, flood, stored
from tests.torture.audience import Guest
from tests.torture.checker import Entry, Evidence, Fault, Finding, check
from tests.torture.chunks import Library
from tests.torture.records import Acked, Began, Failed, Hole, Placed, Record, Resumed, Seen, Sent
from tests.torture.run import rooms_for, verdict_lines
from tests.torture.server import Server

BUSY_MIN: Final = 0.8
"""Part of each worker's time, running or waiting for a CPU: below it, it was not saturated."""
PROCESS_S: Final = 120.0
"""For a process to get ready or to end: generous."""
OF_A_LOG: Final = (Sent, Acked, Failed, Began, Resumed, Seen, Hole, Placed)
Told = TypeVar("Told", flood.Outcome, audience.Outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run."""

    seed: int
    seconds: float
    """Of the flood; start, silence and check come on top."""
    workers: int = 2
    durability: str = "process"
    senders: int = 8
    rooms: int = 4
    """The first one is hot."""
    steady: int = 16
    """Members from the beginning to the end: half in the hot room, half all over."""
    late: int = 8
    restless: int = 8
    niceness: int = 10
    """Of the senders."""
    fault: str = ""
    """Planted in the server (``tests.support.faulty``)."""
    head_s: float = 120.0
    """When the flood has ended: for all members to reach the head (invariant "Gaps are rare")."""


@dataclass(slots=True)
class Report:
    """The result."""

    plan: Plan
    seconds: float
    """The measured length of the flood."""
    accepted: int
    """Messages acknowledged in it."""
    delivered: int
    """Entries that members got in it."""
    server_share: float
    """CPU time of all the server's processes, of all cores."""
    busy: list[float]
    """For each worker: the part of the time that it ran, or waited for a CPU."""
    connections: list[int]
    """For each worker."""
    resumes: int
    behind: int
    """How often members got BEHIND."""
    messages: int = 0
    judged: int = 0
    """Entries in the histories that the checker has processed."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> set[Fault]:
        """The guarantees that were violated."""
        return {finding.fault for finding in self.findings}

    @property
    def saturated(self) -> bool:
        """True if no worker was ever idle for long."""
        return min(self.busy) >= BUSY_MIN

    def __str__(self) -> str:
        plan = self.plan
        busy = ", ".join(f"{share:.0%}" for share in self.busy)
        clients = f"{plan.senders} senders, {plan.steady} steady, {plan.late} late"
        server = f"{plan.workers} workers, durability {plan.durability}, {plan.rooms} rooms"
        lines = [
            f"seed {plan.seed}, {self.seconds:.1f} s, {server}",
            f"{clients}, {plan.restless} restless members",
            f"accepted        {self.accepted / self.seconds:>12,.0f}/s",
            f"delivered       {self.delivered / self.seconds:>12,.0f}/s, decrypted and recorded",
            f"server          {self.server_share:>12.0%} of all cores; the load has the rest",
            f"workers busy    {busy:>12} of the time (running, or waiting for a CPU)",
            f"connections     {', '.join(map(str, self.connections)):>12} per worker",
            f"resumes         {self.resumes:>12,}",
            f"fell behind     {self.behind:>12,}",
            f"judged          {self.judged:>12,} entries of {self.messages:,} messages",
        ]
        doubt = f"PROVED LITTLE: workers were busy for less than {BUSY_MIN:.0%}"
        return "\n".join(lines + verdict_lines(self.findings, "" if self.saturated else doubt))


# --- the clients ---------------------------------------------------------------------------------
class Program:
    """A process of clients: it prints "ready", reads lines, and prints its outcome. A context
    manager.
    """

    def __init__(self, module: str, orders: msgspec.Struct) -> None:
        self._process = loader("players").piped(module, [msgspec.json.encode(orders).decode()])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    async def ready(self) -> None:
        """Wait until it is."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), PROCESS_S)
        if line != "ready\n":
            raise RuntimeError("a process of clients could not begin; see its words above")

    def tell(self, line: str = "") -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    async def outcome(self, kind: type[Told]) -> Told:
        """Wait for its end; return what it printed."""
        assert self._process.stdout is not None
        text = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.read), 2 * PROCESS_S)
        if not text:
            raise RuntimeError("a process of clients failed; see its words above")
        return msgspec.json.decode(text, type=kind)


def guests_of(plan: Plan, rooms: tuple[str, ...]) -> dict[str, list[Guest]]:
    """Return the members, by process.

    Members that join late or reconnect block their process for a handshake: they have processes of
    their own.
    """
    chance = random.Random(plan.seed)
    hot, everywhere = [rooms[0]], list(rooms)
    elsewhere = [*([room] for room in rooms[1:]), everywhere]
    steady = [
        Guest(f"steady{n}", hot if n % 2 == 0 else elsewhere[n // 2 % len(elsewhere)])
        for n in range(plan.steady)
    ]
    # One room each: history that one of these reads, it reads alone.
    restless = [
        Guest(f"restless{n}", [rooms[n % len(rooms)]], restless=True) for n in range(plan.restless)
    ]
    late = [
        Guest(
            f"late{n}",
            [rooms[n % len(rooms)]],
            after_s=chance.uniform(0.1, 0.4) * plan.seconds,
            last=audience.HISTORY_ALL if n % 2 else 1000,
        )
        for n in range(plan.late)
    ]
    return {"steady": steady, "moving": restless + late}


# --- the run -------------------------------------------------------------------------------------
class Run:
    """See the module's docstring."""

    def __init__(self, plan: Plan, directory: Path, show: Callable[[str], None]) -> None:
        self._plan = plan
        self._directory = directory
        self._show = show
        self._rooms = rooms_for(plan.rooms, plan.workers)
        self._data = directory / "data"
        self._guests = guests_of(plan, self._rooms)
        self._senders = [f"sender{n}" for n in range(plan.senders)]
        self._findings: list[Finding] = []

    async def run(self) -> Report:
        """Flood, wait for quiet, check; no process that was started is left behind."""
        plan = self._plan
        server = Server(self._data, plan.workers, plan.durability, plan.fault)
        try:
            await server.start()
            report = await self._flood(server)
            await self._judge(server, report)
            await server.stop()
        finally:
            await server.abandon()
        report.findings += self._findings + server.bugs()
        return report

    async def _flood(self, server: Server) -> Report:
        plan, port, where = self._plan, server.relay.port, str(self._directory)
        processes = Processes(server.relay.pid)
        workers = server.workers()
        with contextlib.ExitStack() as stack:
            groups = [
                stack.enter_context(
                    Program(
                        "tests.torture.audience",
                        audience.Orders(port, where, name, guests, plan.seed),
                    )
                )
                for name, guests in self._guests.items()
            ]
            orders = flood.Orders(
                plan.niceness, port, where, self._senders, list(self._rooms), plan.seed
            )
            senders = stack.enter_context(Program("tests.torture.flood", orders))
            for program in (*groups, senders):
                await program.ready()
            connections = [len(peers) for peers in server.relay.peers_by_worker().values()]
            meter = Meter(processes, workers)
            senders.tell()
            await asyncio.sleep(plan.seconds)
            senders.tell()
            seconds, share, busy = meter.read()
            self._show("the flood is over; everybody reads on to the head")
            sent = await senders.outcome(flood.Outcome)
            if sent.unacknowledged:
                text = f"{sent.unacknowledged} sends without an outcome"
                self._findings.append(Finding(Fault.NEVER_BACK, text))
            heads = {room: stored.read_head(self._data, room) for room in self._rooms}
            settle = audience.Settle(heads, plan.head_s)
            for group in groups:
                group.tell(msgspec.json.encode(settle).decode())
            got = [await group.outcome(audience.Outcome) for group in groups]
        self._findings += [
            Finding(Fault.NOT_AT_HEAD, text) for outcome in got for text in outcome.not_at_head
        ]
        return Report(
            plan,
            seconds,
            sent.acknowledged,
            sum(outcome.seen for outcome in got),
            share,
            busy,
            connections,
            sum(outcome.resumes for outcome in got),
            sum(outcome.behind for outcome in got),
        )

    async def _judge(self, server: Server, report: Report) -> None:
        self._show("checking")
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, spawn) as pool:
            cases = [
                Case(
                    room,
                    first=room == self._rooms[0],
                    directory=self._directory,
                    data=self._data,
                    port=server.relay.port,
                    senders=self._senders,
                    guests=self._guests,
                )
                for room in self._rooms
            ]
            verdicts = [loop.run_in_executor(pool, judge, case) for case in cases]
            for verdict in await asyncio.gather(*verdicts):
                report.messages += verdict.messages
                report.judged += verdict.judged
                report.findings += verdict.findings
        self._show(f"checked in {time.monotonic() - began:.0f} s")


class Meter:
    """How busy a server is, from the creation of this."""

    def __init__(self, processes: Processes, workers: list[int]) -> None:
        self._processes = processes
        self._workers = workers
        self._began = time.monotonic()
        self._cpu_s = processes()
        self._wanted = self._wanted_ns()

    def read(self) -> tuple[float, float, list[float]]:
        """Return (seconds, share of all cores, for each worker how much of the time it was busy).

        A worker is busy while it runs and while it waits for a CPU: on a machine that it shares
        with its load, its CPU time alone does not show whether it was ever idle.
        """
        seconds = time.monotonic() - self._began
        cores = multiprocessing.cpu_count()
        share = (self._processes() - self._cpu_s) / seconds / cores
        wanted = zip(self._wanted_ns(), self._wanted, strict=True)
        return seconds, share, [(now - before) / 1e9 / seconds for now, before in wanted]

    def _wanted_ns(self) -> list[int]:
        return [sum(scheduled(pid)) for pid in self._workers]


# --- the verdict ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Case:
    """One room, and the files with records about it."""

    room: str
    first: bool
    """Records without a room are checked with the first one."""
    directory: Path
    data: Path
    port: int
    senders: list[str]
    guests: dict[str, list[Guest]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker finds in a room."""

    messages: int
    judged: int
    findings: list[Finding]


def judge(case: Case) -> Verdict:
    """Read everything of one room, and check it. Runs in a process of its own."""
    judged = 0

    def of_room(records: Iterable[Record]) -> Iterator[Record]:
        nonlocal judged
        for record in records:
            if not isinstance(record, OF_A_LOG):
                if case.first:
                    yield record
            elif record.log == case.room:
                judged += isinstance(record, Seen)
                yield record

    entries = stored.read_store(case.data, case.room)
    with contextlib.ExitStack() as stack:

        def library(name: str) -> Library:
            opened = Library(case.directory / f"{name}.chunks")
            stack.callback(opened.close)
            return opened

        readers: dict[str, Iterable[Record]] = {}
        for process, guests in case.guests.items():
            chunks = library(process)
            readers |= {
                guest.name: of_room(chunks.history(case.directory / f"{guest.name}.history"))
                for guest in guests
                if case.first or case.room in guest.rooms
            }
        evidence = Evidence(
            {case.room: entries},
            {case.room: fetch(case.port, case.room)},
            {name: of_room(library(name).everything()) for name in case.senders},
            readers,
        )
        findings = check(evidence)
    return Verdict(len(entries), judged, findings)


def fetch(port: int, room: str) -> list[Entry]:
    """Read a log as a client that begins at its first entry, until LIVE.

    Nobody sends any more: what has not come by then does not come.
    """
    entries: list[Entry] = []
    with contextlib.closing(RawClient("127.0.0.1", port, f"auditor-{room}")) as client:
        client.send_envelopes(Join(1, room, NO_EPOCH, 0, 0))
        live = False
        while not live:
            for one in client.read():
                if isinstance(one, EntryMessage):
                    entries.append(stored.entry_of(one))
                live = live or isinstance(one, Live)
    return entries


async def saturate(plan: Plan, directory: Path, show: Callable[[str], None] = print) -> Report:
    """Run a plan; return its report."""
    return await Run(plan, directory, show).run()


async def _run(plan: Plan, directory: Path, show: Callable[[str], None]) -> Report:
    """Run a plan; TERM and INT end it, with all processes that it started."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await saturate(plan, directory, show)


def main() -> int:
    """Run, print, and return 0 when the run passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.saturated")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--durability", choices=("process", "power"), default="process")
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--steady", type=int, default=16)
    parser.add_argument("--niceness", type=int, default=10, help="of the senders")
    parser.add_argument("--fault", default="", help="see tests/support: a broken server")
    given = parser.parse_args()
    plan = Plan(**vars(given))
    directory = Path(tempfile.mkdtemp(prefix="relay-saturated-"))
    began = time.monotonic()

    def show(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)

    show(f"seed {plan.seed}; data and histories in {directory}")
    try:
        report = asyncio.run(_run(plan, directory, show))
    except asyncio.CancelledError:
        show("stopped")
        return 130
    show("\n" + str(report))
    if report.findings:
        return 1
    shutil.rmtree(directory)
    return 0 if report.saturated else 1


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
