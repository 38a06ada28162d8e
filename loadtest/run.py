"""``python -m loadtest.run [--workers N] [LOCUST FLAGS]``: a relay, and Locust in front of it.

Without ``--headless`` Locust's web page is served on this machine only. ``--host`` uses a relay
that runs already, and so does ``--worker``: its master's. ``loadtest.smoke`` is a short check.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from relay.testing import RelayNotStarted, RelayServer

ROOT: Final = Path(__file__).parent.parent
LOCUSTFILE: Final = Path(__file__).parent / "locustfile.py"
KILL_S: Final = 20.0
"""Locust gets so long to end after an interrupt."""
DEFAULTS: Final = (
    ("--locustfile", str(LOCUSTFILE)),
    ("--web-host", "127.0.0.1"),  # Locust's own defaults are all interfaces
    ("--master-bind-host", "127.0.0.1"),
    ("--stop-timeout", "40"),  # users wait for what must still arrive
    ("--run-time", "5m"),
    ("--users", "100"),
    ("--spawn-rate", "20"),
)


SHORT: Final = {"--users": "-u", "--spawn-rate": "-r", "--run-time": "-t", "--locustfile": "-f"}


def locust_command(address: str, flags: Sequence[str]) -> list[str]:
    """Return Locust's command line; what the caller gave wins over the defaults."""
    command = [sys.executable, "-m", "locust"]
    if address:
        command += ["--host", address]
    for name, value in DEFAULTS:
        names = (name, SHORT.get(name, name))
        if not any(flag.partition("=")[0] in names for flag in flags):
            command += [name, value]
    return [*command, *flags]


def run_locust(address: str, flags: Sequence[str], timeout_s: float | None = None) -> int:
    """Run Locust to its end; return its exit code. Leaves none of its processes behind."""
    process = subprocess.Popen(locust_command(address, flags), cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout_s)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        return process.wait(KILL_S)
    finally:
        # Killing the master alone would leave its workers, which wait for it for minutes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def own_relay(workers: int) -> RelayServer:
    """Return a relay for a run, with production's settings; ``with`` starts it.

    Workers 0: one per core.
    """
    return RelayServer(workers=workers, quick=False)


def take_flag(flags: list[str], name: str, default: str) -> str:
    """Remove ``name VALUE`` or ``name=VALUE`` from the flags; return the value."""
    for place, flag in enumerate(flags):
        if flag.startswith(f"{name}="):
            del flags[place]
            return flag.partition("=")[2]
    if name not in flags:
        return default
    place = flags.index(name)
    if place + 1 == len(flags):
        raise SystemExit(f"{name} needs a value")
    value = flags[place + 1]
    del flags[place : place + 2]
    return value


def take_number(flags: list[str], name: str, default: str) -> int:
    """Remove ``name NUMBER`` from the flags; return the number."""
    value = take_flag(flags, name, default)
    if not value.isdecimal():
        raise SystemExit(f"{name} {value}: not a whole number")
    return int(value)


def end_on_term() -> None:
    """Let SIGTERM end this program as an exception does: what it started is ended too."""

    def terminated(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminated)


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit code."""
    end_on_term()
    flags = list(arguments)
    workers = take_number(flags, "--workers", "0")
    host = take_flag(flags, "--host", take_flag(flags, "-H", ""))
    if "--worker" in flags:
        return run_locust("", flags)  # its master says where the relay is
    with contextlib.ExitStack() as stack:
        try:
            address = host or stack.enter_context(own_relay(workers)).address
        except RelayNotStarted as error:
            raise SystemExit(str(error)) from None
        print(f"relay: {address}")
        if "--headless" not in flags:
            port = take_flag(list(flags), "--web-port", "8089")
            print(f"web page: http://127.0.0.1:{port} (Ctrl-C ends both)")
        sys.stdout.flush()
        return run_locust(address, flags)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
