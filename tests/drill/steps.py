"""The steps of the drill, each under the load of the swarm."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from tests.drill.server import Server
from tests.support.versions import OTHER_FORMAT

Step = Callable[[Server, float], Awaitable[None]]
"""Gets how many seconds an undisturbed step takes."""
WORKERS: Final = 2
RELOADED: Final = ("[limits]\nrooms_per_minute = 900\n", "[limits]\nrooms_per_minute = 901\n")


async def calm(server: Server, seconds: float) -> None:
    """Nothing, for comparison."""
    await asyncio.sleep(seconds)


async def rolling_restart(server: Server, seconds: float) -> None:
    """``relay ctl restart``."""
    before = set(server.relay.worker_pids())
    await server.ctl("restart")
    await server.until(lambda: not before & set(server.relay.worker_pids()), "other workers")


async def good_reload(server: Server, seconds: float) -> None:
    """Reload a changed limit, another one each time."""
    before = server.config.read_text() if server.config.exists() else ""
    changed = RELOADED[before == RELOADED[0]]
    server.config.write_text(changed)
    answer = await server.ctl("reload")
    assert "limits.rooms_per_minute" in answer["changed"]
    await asyncio.sleep(seconds)


async def bad_reload(server: Server, seconds: float) -> None:
    """Reload a file with a mistake."""
    before = server.config.read_text()
    server.config.write_text("[limits]\nrooms_per_minuet = 900\n")
    await server.ctl("reload", code=1)
    await asyncio.sleep(seconds)
    server.config.write_text(before)


async def more_workers(server: Server, seconds: float) -> None:
    """Add two workers."""
    await server.ctl("workers", str(2 * WORKERS))
    await server.whole(2 * WORKERS)


async def fewer_workers(server: Server, seconds: float) -> None:
    """Remove two workers."""
    await server.ctl("workers", str(WORKERS))
    await server.until(lambda: len(server.relay.worker_pids()) == WORKERS, "fewer workers")


async def backup(server: Server, seconds: float) -> None:
    """A backup."""
    to = server.config.with_name("backup")
    await server.ctl("backup", str(to))
    shutil.rmtree(to)


def killed(title: str, *, spare: bool = False) -> Step:
    """``kill -9`` of a process."""

    async def step(server: Server, seconds: float) -> None:
        if spare:
            await server.until(lambda: server.relay.pids_titled("relay: spare"), "a spare process")
        await server.replaced(title, server.kill(title))

    return step


async def all_killed(server: Server, seconds: float) -> None:
    """``kill -9`` of the supervisor, with which all processes end, and a new start, as of a
    service.
    """
    os.kill(server.relay.pid, signal.SIGKILL)
    await server.until(lambda: not server.relay.pids_titled("relay: worker"), "the end of all")
    await asyncio.to_thread(server.relay.kill)
    await asyncio.to_thread(server.relay.start)


async def stopped(server: Server, seconds: float) -> None:
    """SIGSTOP of a worker: it is detected, killed and replaced."""
    await server.replaced("relay: worker 0", server.kill("relay: worker 0", signal.SIGSTOP))


async def upgrade(server: Server, seconds: float) -> None:
    """Upgrade to the version on disk, worker by worker."""
    await server.ctl("upgrade")
    assert server.relay.events("upgrade_ready")[-1]["worker_by_worker"]


async def switch(server: Server, seconds: float) -> None:
    """Upgrade to a version whose workers cannot run beside the current ones."""
    server.versions.install("other", OTHER_FORMAT)
    await server.ctl("upgrade")
    assert not server.relay.events("upgrade_ready")[-1]["worker_by_worker"]


async def new_version(server: Server, seconds: float) -> None:
    """Stop, and start on the same socket, as an upgrade does."""
    await asyncio.to_thread(server.relay.stop)
    await asyncio.to_thread(server.relay.start)


STEPS: Final[dict[str, Step]] = {
    "calm": calm,
    "`relay ctl restart`": rolling_restart,
    "reload": good_reload,
    "reload, refused": bad_reload,
    "workers 2 → 4": more_workers,
    "workers 4 → 2": fewer_workers,
    "`relay ctl backup`": backup,
    "kill -9 of a worker, with a spare": killed("relay: worker 0", spare=True),
    "kill -9 of a worker": killed("relay: worker 1"),
    "kill -9 of the key agent": killed("relay: key agent"),
    "kill -9 of the control process": killed("relay: control"),
    "kill -9 of the spare process": killed("relay: spare", spare=True),
    "kill -9 of the supervisor, started again": all_killed,
    "SIGSTOP of a worker": stopped,
    "`relay ctl upgrade` (USR2)": upgrade,
    "`relay ctl upgrade`, another format": switch,
    "stop and start on the given socket": new_version,
}
