"""The server of a run: restarted on the same port and data, however it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil

from tests.support import power
from tests.support.cluster import Relay
from tests.support.events import PROGRAM_ERRORS
from tests.support.faulty import power_notes
from tests.torture.checker import Fault, Finding
from tests.torture.effort import Effort

GONE_S: Final = 30.0


class Server:
    """One relay, over any number of restarts."""

    def __init__(self, data: Path, workers: int, durability: str, fault: str) -> None:
        self._data = data
        self._workers = workers
        self._durability = durability
        self._fault = fault
        self._boot = 1
        self._bind = "127.0.0.1:0"
        self._relay: Relay | None = None
        self._held: set[int] = set()
        """Process ids stopped by SIGSTOP."""
        self.logs: list[list[str]] = []
        """The server's logs, one for each previous life."""
        self.up = False

    # --- lives ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Start it, and wait until it serves."""
        fault = f"observe,boot-id={self._boot},{self._fault}".strip(",")
        self._relay = relay = Relay(
            self._data,
            "--durability",
            self._durability,
            bind=self._bind,
            workers=self._workers,
            fault=fault,
        )
        await asyncio.to_thread(relay.start)
        self._bind = f"127.0.0.1:{relay.port}"
        self.up = True

    @property
    def relay(self) -> Relay:
        """The current process."""
        assert self._relay is not None
        return self._relay

    async def kill(self) -> None:
        """``kill -9`` of the supervisor: its children must end with it."""
        self.up = False
        children = list(self.relay.children())
        os.kill(self.relay.pid, signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, children, GONE_S)
        await asyncio.to_thread(self._end, self.relay.kill)

    def _end(self, how: Callable[[], object]) -> None:
        relay = self.relay
        try:
            how()
        finally:
            self._relay = None
            self.logs.append(relay.log)
            relay.close()

    async def stop(self) -> None:
        """TERM, and wait."""
        self.up = False
        for pid in list(self._held):
            self.resume(pid)
        await asyncio.to_thread(self._end, self.relay.stop)

    async def abandon(self) -> None:
        """Clean up, whatever its state is."""
        if self._relay is not None:
            await asyncio.to_thread(self._end, self._relay.kill)

    def cut_power(self, chance: random.Random) -> int:
        """Drop what was not synced, between two lives. Return the number of bytes."""
        self.reboot()
        return power.cut(power_notes(self._data.with_suffix(".fault")), chance)

    def reboot(self) -> None:
        """The next life is on a machine that was rebooted, as far as it can detect."""
        self._boot += 1

    # --- its processes ----------------------------------------------------------------------------
    def workers(self) -> list[int]:
        """Process ids of the workers that run."""
        return [] if self._relay is None else self._relay.live_workers()

    def agent(self) -> int | None:
        """The key agent's process id."""
        return None if self._relay is None else self._relay.agent()

    def pause(self, pid: int) -> None:
        """SIGSTOP."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._held.add(pid)

    def resume(self, pid: int) -> None:
        """SIGCONT; a process that was stopped for too long has been replaced meanwhile."""
        self._held.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def complete(self) -> bool:
        """True when every worker and the agent are running."""
        return self.up and len(self.workers()) == self._workers and self.agent() is not None

    # --- what it tells of itself ------------------------------------------------------------------
    def count(self, effort: Effort) -> None:
        """Add the workers' counters (``observe`` of ``tests.support.faulty``)."""
        for path in self._data.parent.glob(f"{self._data.name}.fault.*.json"):
            counted = json.loads(path.read_bytes())
            effort.repairs += counted["bus_repairs"]
            effort.dropped += counted["dropped"]
            effort.links_cut += counted["links_cut"]

    def bugs(self) -> list[Finding]:
        """Return the lines of its log that indicate bugs."""
        lines = [line for log in self.logs for line in log]
        found = [line for line in lines if _is_bug(line)]
        return [Finding(Fault.SERVER_ERROR, line[:2000]) for line in found]


def _is_bug(line: str) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return True  # a traceback, or a message of the interpreter
    return event.get("event") in PROGRAM_ERRORS or "exc_info" in event
