"""The nemesis: faults of server, network and clients, in an order determined by a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.torture.cast import Player
from tests.torture.effort import Effort
from tests.torture.proxy import Proxy
from tests.torture.server import Server

HOLD_S = (0.3, 4.0)
LONG_HOLD_S = (6.0, 8.0)
"""Longer than ``worker_timeout_s``: the worker is replaced while it is stopped."""
VICTIM_POLLS, VICTIM_POLL_S = 100, 0.05
ALL_READERS_BEHIND = 400
"""Messages that all readers miss while they are stopped."""
LOAD_S, LOAD_POLL_S = 10.0, 0.05
"""How long the next message is waited for at most: a broken relay may acknowledge none."""
FREEZE_S = (0.1, 0.8)
CLIENT_DEAD_S = (0.0, 2.0)
SERVER_DEAD_S = (0.0, 1.0)


@dataclass(slots=True)
class Stage:
    """Everything that faults can be injected into."""

    server: Server
    proxy: Proxy
    players: list[Player]
    effort: Effort
    chance: random.Random
    record: list[str] = field(default_factory=list)
    """What was done, in order, for the report."""
    healing: set[asyncio.Task[None]] = field(default_factory=set)
    """Faults that end by themselves."""

    def follow(self) -> None:
        """Read what the clients have written."""
        for player in self.players:
            player.follow(self.effort)

    async def load(self, count: int) -> None:
        """Wait until so many messages are acknowledged, however long it takes on this machine."""
        loop = asyncio.get_running_loop()
        deadline, before = loop.time() + LOAD_S, self.effort.acknowledged
        enough = before + count
        while before < enough and loop.time() < deadline:
            await asyncio.sleep(LOAD_POLL_S)
            self.follow()
            if self.effort.acknowledged > before:
                deadline, before = loop.time() + LOAD_S, self.effort.acknowledged

    def later(self, when: Callable[[], Awaitable[None]], heal: Callable[[], None]) -> None:
        """Undo a fault after what is awaited, whatever the run does."""

        async def wait() -> None:
            try:
                await when()
            finally:
                heal()

        task = asyncio.ensure_future(wait())
        self.healing.add(task)
        task.add_done_callback(self.healing.discard)

    async def healed(self) -> None:
        """Wait until no process is stopped or dead."""
        while self.healing:
            await asyncio.wait(self.healing)

    async def heal_now(self) -> None:
        """Undo every fault at once: the run is being aborted."""
        for task in self.healing:
            task.cancel()
        await asyncio.gather(*self.healing, return_exceptions=True)


Blow = Callable[[Stage], Awaitable[None]]


def sleeping(seconds: float) -> Callable[[], Awaitable[None]]:
    """For ``Stage.later``."""
    return partial(asyncio.sleep, seconds)


async def _worker(stage: Stage) -> int | None:
    """Choose a worker; wait for one if all are dead."""
    for _ in range(VICTIM_POLLS):
        if pids := stage.server.workers():
            return stage.chance.choice(pids)
        await asyncio.sleep(VICTIM_POLL_S)
    return None


async def kill_worker(stage: Stage) -> None:
    """``kill -9`` of a worker."""
    pid = await _worker(stage)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            stage.effort.worker_kills += 1


async def kill_all_workers(stage: Stage) -> None:
    """``kill -9`` of all workers in one moment."""
    for pid in stage.server.workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            stage.effort.worker_kills += 1


async def kill_agent(stage: Stage) -> None:
    """``kill -9`` of the key agent."""
    for _ in range(VICTIM_POLLS):
        pid = stage.server.agent()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                stage.effort.agent_kills += 1
            return
        await asyncio.sleep(VICTIM_POLL_S)


async def kill_server(stage: Stage) -> None:
    """``kill -9`` of the supervisor; a new server on the same port and data."""
    stage.effort.server_kills += 1
    await stage.server.kill()
    await asyncio.sleep(stage.chance.uniform(*SERVER_DEAD_S))
    await stage.server.start()


async def reboot(stage: Stage) -> None:
    """As ``kill_server``; the new server assumes that the machine was rebooted: new epochs."""
    stage.effort.reboots += 1
    stage.server.reboot()
    await kill_server(stage)


async def cut_power(stage: Stage) -> None:
    """Cut the power of the whole machine, which loses unsynced writes, and restore it.

    The server has the fault ``unsynced``.
    """
    await stage.server.kill()
    stage.effort.power_cuts += 1
    stage.effort.unsynced += await asyncio.to_thread(stage.server.cut_power, stage.chance)
    await stage.server.start()


async def stop_server(stage: Stage) -> None:
    """TERM; a new server on the same port and data."""
    stage.effort.server_stops += 1
    await stage.server.stop()
    await stage.server.start()


async def cut(stage: Stage) -> None:
    """Reset some of the clients' connections, or all of them."""
    connections = stage.proxy.connections
    count = stage.chance.choice([1, 1, 2, len(connections)])
    chosen = stage.chance.sample(connections, min(count, len(connections)))
    stage.proxy.cut(chosen)
    stage.effort.cuts += len(chosen)


async def kill_client(stage: Stage) -> None:
    """``kill -9`` of a client's process; a new one continues from its history."""
    running = [player for player in stage.players if player.running and not player.stopped]
    if not running:
        return
    player = stage.chance.choice(running)
    player.kill()
    stage.effort.client_kills += 1
    stage.later(sleeping(stage.chance.uniform(*CLIENT_DEAD_S)), player.start)


async def stop_reader(stage: Stage) -> None:
    """SIGSTOP of a reader for some seconds: it reads nothing, its connection stays."""
    readers = [
        player
        for player in stage.players
        if player.part.program == "reader" and player.running and not player.stopped
    ]
    if readers:
        player = stage.chance.choice(readers)
        player.stop()
        stage.effort.stops += 1
        stage.later(sleeping(stage.chance.uniform(*HOLD_S)), player.resume)


async def stop_all_readers(stage: Stage) -> None:
    """SIGSTOP of every reader, long enough to fall behind."""
    for player in stage.players:
        if player.part.program == "reader" and player.running and not player.stopped:
            player.stop()
            stage.effort.stops += 1
            stage.later(partial(stage.load, ALL_READERS_BEHIND), player.resume)


async def stop_worker(stage: Stage) -> None:
    """SIGSTOP of a worker, mostly for less time than it takes to be replaced."""
    pid = await _worker(stage)
    if pid is not None:
        victim = pid
        stage.server.pause(victim)
        stage.effort.stops += 1
        span = LONG_HOLD_S if stage.chance.random() < 0.15 else HOLD_S
        stage.later(sleeping(stage.chance.uniform(*span)), lambda: stage.server.resume(victim))


async def freeze_and_cut(stage: Stage) -> None:
    """SIGSTOP all workers, cut all connections, SIGCONT: what was sent is stored, and resent."""
    pids = stage.server.workers()
    for pid in pids:
        stage.server.pause(pid)
    stage.effort.stops += len(pids)
    await asyncio.sleep(stage.chance.uniform(*FREEZE_S))
    stage.effort.cuts += len(stage.proxy.connections)
    stage.proxy.cut(stage.proxy.connections)
    for pid in pids:
        stage.server.resume(pid)


async def freeze_and_kill(stage: Stage) -> None:
    """SIGSTOP a worker, and kill it when it has work waiting."""
    pid = await _worker(stage)
    if pid is not None:
        stage.server.pause(pid)
        stage.effort.stops += 1
        await asyncio.sleep(stage.chance.uniform(*FREEZE_S))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            stage.effort.worker_kills += 1
        stage.server.resume(pid)


async def rest(stage: Stage) -> None:
    """Do nothing: in a script, let the load continue for a while."""


WEIGHTS: dict[Blow, float] = {
    kill_worker: 5,
    kill_all_workers: 0.5,
    kill_agent: 1,
    kill_server: 1,
    stop_server: 0.7,
    reboot: 0.5,
    cut: 5,
    kill_client: 4,
    stop_reader: 4,
    stop_worker: 2,
    freeze_and_cut: 2,
    freeze_and_kill: 2,
}
"""The weight of each fault in a random run."""


async def strike(stage: Stage, blow: Blow, at: float) -> None:
    """Inject one fault, and record it."""
    stage.record.append(f"{at:7.2f} {blow.__name__}")
    await blow(stage)


async def rage(
    stage: Stage,
    seconds: float,
    pause_s: float,
    weighted: dict[Blow, float],
    enough: Callable[[], bool],
) -> None:
    """Inject faults at random until the time is over; each kind once first, however long that
    takes.

    A slow machine gets up to ten times as long, until it was ``enough``.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    blows, weights = list(weighted), list(weighted.values())
    first = stage.chance.sample(blows, len(blows))
    while (at := loop.time() - began) < seconds or first or (at < 10 * seconds and not enough()):
        blow = first.pop() if first else stage.chance.choices(blows, weights)[0]
        await strike(stage, blow, at)
        await asyncio.sleep(stage.chance.expovariate(1 / pause_s))


async def follow(stage: Stage, script: Sequence[tuple[int, Blow]]) -> None:
    """Inject faults by a script: (messages acknowledged since the previous fault, fault) each."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for count, blow in script:
        await stage.load(count)
        await strike(stage, blow, loop.time() - began)
