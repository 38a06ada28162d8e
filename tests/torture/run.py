"""One run: a server, its clients, the nemesis; then a quiet phase, and the checker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from relay.chat.partition import partition_of
from tests.torture import nemesis, stored
from tests.torture.cast import Part, Player
from tests.torture.checker import Evidence, Fault, Finding, Place, check
from tests.torture.effort import Effort
from tests.torture.nemesis import Blow, Stage
from tests.torture.proxy import Proxy
from tests.torture.records import read_records
from tests.torture.server import Server

POLL_S = 0.1
START_S = 120.0
"""For all clients to be connected at first."""
END_S = 60.0
"""For all clients to end."""
READER_OPTIONS = ("blocking", "trusting", "small", "late+trusting", "sleepy", "blocking+trusting")
SENDER_OPTIONS = ("", "+blocking")
SHOWN_MAX = 5
"""Findings of one kind in a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run."""

    seed: int
    seconds: float
    """Of the nemesis; start, quiet phase and check come on top."""
    workers: int = 2
    durability: str = "process"
    senders: int = 3
    readers: int = 5
    rooms: int = 3
    rate: float = 40.0
    """Messages per second and sender."""
    pause_s: float = 0.8
    """Mean time between two faults."""
    script: tuple[tuple[int, Blow], ...] | None = None
    """Faults in order, instead of random ones; before each, so many messages are stored."""
    fault: str = "drop-batches=0.08,cut-links=0.02,small-outbox=20000"
    """Planted in the server (``tests.support.faulty``)."""
    power_cuts: bool = False
    """The random faults include power cuts."""
    reader_options: tuple[str, ...] = READER_OPTIONS
    minimum: Effort = field(default_factory=Effort)
    back_s: float = 40.0
    """When the nemesis has ended: for all clients to be connected, and all sends to have ended."""
    head_s: float = 10.0
    """Then: for connected readers to reach the head (invariant "Gaps are rare")."""


@dataclass(slots=True)
class Report:
    """The result."""

    plan: Plan
    effort: Effort
    findings: list[Finding]
    record: list[str]

    @property
    def shortfalls(self) -> list[str]:
        """Where the run did too little to be meaningful."""
        return self.effort.short_of(self.plan.minimum)

    @property
    def passed(self) -> bool:
        """True if it did enough, and nothing was found."""
        return not self.findings and not self.shortfalls

    @property
    def faults(self) -> set[Fault]:
        """The guarantees that were violated."""
        return {finding.fault for finding in self.findings}

    def __str__(self) -> str:
        plan = self.plan
        server = f"{plan.workers} workers, durability {plan.durability}"
        clients = f"{plan.senders} senders, {plan.readers} readers"
        lines = [f"seed {plan.seed}, {plan.seconds:g} s, {server}, {clients}"]
        lines += self.effort.lines()
        doubt = "PROVED NOTHING: " + "; ".join(self.shortfalls) if self.shortfalls else ""
        return "\n".join(lines + verdict_lines(self.findings, doubt))


def verdict_lines(findings: list[Finding], doubt: str) -> list[str]:
    """Return the end of a report: some findings of each kind, and the result.

    Args:
        findings: of the checker.
        doubt: why a run without findings proves little; empty: it does not.
    """
    lines: list[str] = []
    for fault in Fault:
        found = [finding for finding in findings if finding.fault is fault]
        lines += [str(finding) for finding in found[:SHOWN_MAX]]
        if len(found) > SHOWN_MAX:
            lines.append(f"... and {len(found) - SHOWN_MAX} more of {fault.name}")
    if findings:
        lines.append(f"FAILED: {len(findings)} findings")
    else:
        lines.append(doubt or "PASSED: nothing lost, doubled, reordered or skipped")
    return lines


def rooms_for(count: int, workers: int) -> tuple[str, ...]:
    """Return names of rooms whose homes are spread over the workers."""
    names: list[str] = []
    number = 0
    while len(names) < count:
        name = f"room{number}"
        if partition_of(name) % workers == len(names) % workers:
            names.append(name)
        number += 1
    return tuple(names)


class Run:
    """See the module's docstring."""

    def __init__(self, plan: Plan, directory: Path, show: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            plan: what to do.
            directory: for the data, and every client's history.
            show: takes lines about how it goes.
        """
        self._plan = plan
        self._data = directory / "data"
        self._directory = directory
        self._show = show
        self._rooms = rooms_for(plan.rooms, plan.workers)
        self._people = [f"reader{n}" for n in range(plan.readers)]
        self._inboxes = [f"@{name}" for name in self._people]
        self._inboxes += [f"@sender{n}" for n in range(plan.senders)]
        fault = ",".join(filter(None, (plan.fault, "unsynced" * plan.power_cuts)))
        self._server = Server(self._data, plan.workers, plan.durability, fault)
        self._effort = Effort()
        self._findings: list[Finding] = []
        self._lost: list[Player] = []
        """Clients that never came back."""

    async def run(self) -> Report:
        """Run all phases; no process that was started is left behind."""
        plan = self._plan
        async with Proxy() as proxy:
            chance = random.Random(plan.seed)
            stage = Stage(self._server, proxy, [], self._effort, chance)
            players = stage.players
            try:
                await self._server.start()
                proxy.target = self._server.relay.port
                players += self._players(proxy.port)
                # Readers first: messages to a name that does not exist are refused.
                for program in ("reader", "sender"):
                    some = [player for player in players if player.part.program == program]
                    for player in some:
                        player.start()
                    await self._until(
                        lambda some=some: all(p.online for p in some),  # type: ignore[misc]
                        players,
                        START_S,
                    )
                await self._torture(stage)
                await self._settle(stage)
                findings = await self._verdict(stage)
            finally:
                await stage.heal_now()
                for player in players:
                    player.kill()
                await self._server.abandon()
        self._server.count(self._effort)
        return Report(plan, self._effort, findings, stage.record)

    def _players(self, port: int) -> list[Player]:
        plan = self._plan
        fingerprint = self._server.relay.address.removeprefix("relay://").split("@")[0]
        address = f"relay://{fingerprint}@127.0.0.1:{port}"
        options = plan.reader_options
        to = f"+to={'.'.join(self._people)}"
        parts = [
            Part(
                f"sender{n}",
                "sender",
                (*self._rooms, f"@sender{n}"),
                f"{plan.rate}{SENDER_OPTIONS[n % 2]}{to}",
            )
            for n in range(plan.senders)
        ]
        parts += [
            Part(name, "reader", (*self._rooms, f"@{name}"), options[n % len(options)])
            for n, name in enumerate(self._people)
        ]
        return [
            Player(part, self._directory / f"{part.name}.jsonl", plan.seed, address)
            for part in parts
        ]

    # --- the phases ---------------------------------------------------------------------------
    async def _torture(self, stage: Stage) -> None:
        plan = self._plan
        if plan.script is None:
            weights = nemesis.WEIGHTS | ({nemesis.cut_power: 1.0} if plan.power_cuts else {})
            raging = nemesis.rage(stage, plan.seconds, plan.pause_s, weights, self._did_enough)
            striking = asyncio.ensure_future(raging)
        else:
            striking = asyncio.ensure_future(nemesis.follow(stage, plan.script))
        try:
            while not striking.done():
                await asyncio.wait({striking}, timeout=5.0)
                stage.follow()
                self._show(self._progress(stage))
            await striking
        finally:
            striking.cancel()

    def _did_enough(self) -> bool:
        # Clients record at their end how much they have sent again.
        effort = replace(self._effort, resent=self._plan.minimum.resent)
        self._server.count(effort)
        return not effort.short_of(self._plan.minimum)

    def _progress(self, stage: Stage) -> str:
        effort = self._effort
        return (
            f"{len(stage.record)} blows, {effort.acknowledged:,} acknowledged, "
            f"{effort.delivered:,} delivered"
        )

    async def _settle(self, stage: Stage) -> None:
        """Wait until all is connected; stop the load; every reader must reach the head."""
        plan, players = self._plan, stage.players
        await stage.healed()
        senders = [player for player in players if player.part.program == "sender"]
        readers = [player for player in players if player.part.program == "reader"]
        for sender in senders:
            sender.finish()
        await self._until(
            lambda: (
                self._server.complete()
                and all(sender.ended for sender in senders)
                and all(reader.online for reader in readers)
            ),
            players,
            plan.back_s,
        )
        for player in players:
            if player in senders and not player.ended:
                text = f"{player.part.name}: {player.unacknowledged} sends without an outcome"
                self._findings.append(Finding(Fault.NEVER_BACK, text))
                self._lost.append(player)
            elif player in readers and not player.online:
                self._findings.append(Finding(Fault.NEVER_BACK, player.part.name))
                self._lost.append(player)
        # Accepted is accepted: every copy is delivered, without help of a client.
        await self._until(lambda: not stored.pending(self._data), players, plan.head_s)
        if left := stored.pending(self._data):
            self._findings.append(Finding(Fault.LOST, f"{left} direct messages still pending"))
        heads = {
            reader.part.name: {
                log: Place(*stored.read_head(self._data, log)) for log in reader.part.logs
            }
            for reader in readers
        }
        self._show("the load has stopped; waiting for every reader to reach the head")
        await self._until(
            lambda: all(reader.places == heads[reader.part.name] for reader in readers),
            players,
            plan.head_s,
        )
        self._show("every reader is at the head, or its time is up")
        for reader in readers:
            for room, head in heads[reader.part.name].items():
                if reader.online and reader.places.get(room) != head:
                    text = f"{reader.part.name} in {room}: {reader.places.get(room)}, head {head}"
                    self._findings.append(Finding(Fault.NOT_AT_HEAD, text))

    async def _verdict(self, stage: Stage) -> list[Finding]:
        """End the readers, read the logs, and compare."""
        for player in stage.players:
            if player in self._lost:
                player.kill()  # its time is over, and it would retry for ever
            else:
                player.finish()
        await self._until(
            lambda: not any(player.running for player in stage.players), stage.players, END_S
        )
        # Directly from the server: the proxy is part of the torture.
        address = self._server.relay.address
        fetched = {room: await stored.fetch(address, room) for room in self._rooms}
        logs = (*self._rooms, *self._inboxes)
        in_store = {log: stored.read_store(self._data, log) for log in logs}
        # Only its owner reads an inbox: the readers' records have to be enough.
        fetched |= {inbox: in_store[inbox] for inbox in self._inboxes}
        await self._server.stop()
        histories = {
            program: {
                player.part.name: read_records(player.history)
                for player in stage.players
                if player.part.program == program
            }
            for program in ("sender", "reader")
        }
        self._show("checking")
        evidence = Evidence(
            in_store,
            fetched,
            histories["sender"],
            histories["reader"],
            self._people,
            may_lose=self._plan.durability == "process" and self._effort.power_cuts > 0,
        )
        return check(evidence) + self._findings + self._server.bugs()

    # --- watching -----------------------------------------------------------------------------
    def _follow(self, players: list[Player]) -> None:
        for player in players:
            player.follow(self._effort)

    async def _until(
        self, condition: Callable[[], bool], players: list[Player], deadline_s: float
    ) -> None:
        """Wait for a condition until a deadline; what is not true then is found elsewhere."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        while not condition() and loop.time() < deadline:
            await asyncio.sleep(POLL_S)
            self._follow(players)


async def torture(plan: Plan, directory: Path, show: Callable[[str], None] = print) -> Report:
    """Run a plan; return its report."""
    return await Run(plan, directory, show).run()
