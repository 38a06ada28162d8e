"""``python -m loadtest.run [--workers N] [LOCUST FLAGS]``: a relay, and Locust in front of it.

Without ``--headless`` Locust's web page is served on this machine only. ``--host`` uses a relay
that runs already, and so does ``--worker``: its master's. ``loadtest.smoke`` is a short check.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from loadtest import program
from loadtest.program import ROOT, Interrupted
from relay.client.address import parse_address
from relay.errors import UsageError
from relay.testing import RelayServer

LOCUSTFILE: Final = Path(__file__).parent / "locustfile.py"
END_S: Final = 60.0
"""Locust gets so long to end: its users wait for what must still arrive (--stop-timeout)."""
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
LATE: Final = 124
"""The status of a run that did not end in its time, as ``timeout`` has it."""


def locust_command(address: str, flags: Sequence[str]) -> list[str]:
    """Return Locust's command line; what the caller gave wins over the defaults."""
    command = [sys.executable, "-m", "locust"]
    if address:
        command += ["--host", address]
    for name, value in (*DEFAULTS, *_port_of_the_master(flags)):
        names = (name, SHORT.get(name, name))
        if not any(flag.partition("=")[0] in names for flag in flags):
            command += [name, value]
    return [*command, *flags]


def _port_of_the_master(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Choose a free port for the master, so that runs on one machine do not collide."""
    names = {flag.partition("=")[0] for flag in flags}
    if "--processes" in names and not names & {"--worker", "--master-port", "--master-bind-port"}:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = str(sock.getsockname()[1])
        yield from (("--master-bind-port", port), ("--master-port", port))


def run_locust(address: str, flags: Sequence[str], timeout_s: float | None = None) -> int:
    """Run Locust to its end; return its exit code. Leaves none of its processes behind.

    Ended by SIGTERM or Ctrl-C, or after ``timeout_s``, it ends as at the end of its run time: users
    leave, the summary is printed. A second signal ends it at once.

    Raises:
        Interrupted: by a signal; has the exit code.
    """
    process = subprocess.Popen(locust_command(address, flags), cwd=ROOT, start_new_session=True)
    try:
        return process.wait(timeout_s)
    except KeyboardInterrupt:
        raise Interrupted(_end(process)) from None
    except subprocess.TimeoutExpired:
        print(f"loadtest: Locust did not end within {timeout_s} s", file=sys.stderr)
        return _end(process) or LATE
    finally:
        # Killing the master alone would leave its workers, which wait for it for minutes.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    try:
        status = process.wait(END_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        print("loadtest: Locust was killed; there may be no summary", file=sys.stderr)
        return LATE
    return status if status >= 0 else 128 - status


def own_relay(workers: int) -> RelayServer:
    """Return a relay for a run, with production's settings; ``with`` starts it.

    Workers 0: one per core.
    """
    settings = {"accounts.registration": "open"}
    return RelayServer(workers=workers, quick=False, settings=settings)


class Parser(argparse.ArgumentParser):
    """The flags of these programs; the others are Locust's."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("--workers", type=int, default=0)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(message)

    def take(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return our flags, and Locust's. Raises UsageError."""
        ours, others = self.parse_known_args(arguments)
        if ours.workers < 0:
            raise UsageError(f"--workers {ours.workers}: from 0 on; 0 is one per core")
        return ours, others


def main(arguments: Sequence[str]) -> int:
    """Run; return the exit code. Raises UsageError, RelayNotStarted, Interrupted."""
    parser = Parser()
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-H", "--host")
    parser.add_argument("--worker", action="store_true")
    ours, flags = parser.take(arguments)
    if ours.help:
        print(__doc__)
        print("  --workers N  worker processes of the relay that is started; 0: one per core\n")
        sys.stdout.flush()
        return subprocess.call([sys.executable, "-m", "loadtest.options"], cwd=ROOT)
    if ours.worker:
        return run_locust("", ["--worker", *flags])  # its master says where the relay is
    if ours.host is not None:
        parse_address(ours.host)
    with contextlib.ExitStack() as stack:
        address = ours.host or stack.enter_context(own_relay(ours.workers)).address
        print(f"relay: {address}")
        if "--headless" not in flags:
            web = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
            web.add_argument("--web-port", "-P", default="8089")
            port = web.parse_known_args(flags)[0].web_port
            print(f"web page: http://127.0.0.1:{port} (Ctrl-C ends both)")
        sys.stdout.flush()
        return run_locust(address, flags)


if __name__ == "__main__":
    program.run(main)
