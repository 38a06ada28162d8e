"""The relay of a drill: on a socket that another process holds, as with systemd's relay.socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from tests.support.cluster import Relay, run_relay
from tests.support.given_socket import GivenSocket
from tests.support.versions import Versions

WAIT_S: Final = 60.0


class Server:
    """One relay, with the actions of an operator."""

    def __init__(self, directory: Path, workers: int, settings: Mapping[str, object]) -> None:
        self._given = GivenSocket(directory)
        self.versions = Versions(directory / "versions")
        """The versions installed; the current one is started."""
        self.config = directory / "relay.toml"
        self.config.write_text("[limits]\nrooms_per_minute = 1000\n")
        self.relay = Relay(
            directory / "data",
            "--config",
            str(self.config),
            workers=workers,
            settings=settings,
            launcher=self._given.launcher,
            source=self.versions.current,
        )

    def __enter__(self) -> Self:
        """Start it."""
        self.relay.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        self.relay.close()
        self._given.__exit__(*exc)

    # --- what is done to it -----------------------------------------------------------------------
    async def ctl(self, *args: str, code: int = 0) -> Any:  # noqa: ANN401  # JSON
        """Run ``relay ctl``; return its answer, or None if it was refused as expected."""
        ended = await asyncio.to_thread(
            run_relay, "ctl", "--data", self.relay.data, *args, "--json"
        )
        assert ended.returncode == code, ended.stderr
        return json.loads(ended.stdout) if code == 0 else None

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition; raise AssertionError after a minute."""
        deadline = time.monotonic() + WAIT_S
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < deadline, f"not within {WAIT_S:.0f} s: {what}"
            await asyncio.sleep(0.05)

    async def whole(self, workers: int) -> None:
        """Wait until so many workers serve, each with its share of the partitions."""
        deadline = time.monotonic() + WAIT_S
        while True:
            found = await self.ctl("status", code=0) if await self._answers() else None
            if found is not None:
                shares = [len(w["partitions"]) for w in found["workers"]]
                even = len(shares) == workers and max(shares) - min(shares) <= 1
                running = all(w["state"] == "running" for w in found["workers"])
                if found["ready"] and running and even:
                    return
            assert time.monotonic() < deadline, f"not whole again: {found}"
            await asyncio.sleep(0.1)

    async def _answers(self) -> bool:
        ended = await asyncio.to_thread(run_relay, "ctl", "--data", self.relay.data, "status")
        return ended.returncode == 0

    def kill(self, title: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process by its title; return its id."""
        pid = self.relay.pids_titled(title)[0]
        os.kill(pid, number)
        return pid

    async def replaced(self, title: str, pid: int) -> None:
        """Wait until another process has replaced the given one."""
        await self.until(
            lambda: (
                any(found != pid for found in self.relay.pids_titled(title))
                and pid not in self.relay.pids_titled(title)
            ),
            f"another {title}",
        )
