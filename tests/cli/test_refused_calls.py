"""A system call that is refused to a command: one line that says what to do, and its end."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import ROOT, Relay
from tests.support.programs import run_program
from tests.support.refused_calls import CAN_BE_REFUSED, refusing

COMMAND = "import sys\nfrom relay.cli.__main__ import main\nsys.argv[0] = 'relay'\nsys.exit(main())"
FILTER = "a filter of system calls refuses something that Relay needs"


@CAN_BE_REFUSED
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        ("connect", errno.ENOSYS, "Function not implemented: "),
        ("getsockopt", errno.ENOSYS, "Function not implemented: "),
        ("getrandom", errno.EPERM, "port {port}: Operation not permitted: "),
        ("fcntl", errno.EPERM, "an event loop cannot be made: Operation not permitted: "),
        ("sendto", errno.ENOSYS, "an event loop cannot be made: Function not implemented: "),
        ("rt_sigaction", errno.EPERM, "cannot start: Operation not permitted: "),
    ],
)
def test_a_client(relay: Relay, room: str, known: Path, call: str, error: int, said: str) -> None:
    """It does not wait, as for a server that is away."""
    done = run_program(
        refusing(error, call) + COMMAND,
        "send", relay.address, room, "hello", "--name", "~nobody", "--known-servers", str(known),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("relay: ")
    said = said.replace("{port}", str(relay.port))
    assert f"{said}{FILTER}" in line


@CAN_BE_REFUSED
@pytest.mark.parametrize("call", ["connect", "getsockopt"])
def test_what_may_be_a_firewall(relay: Relay, room: str, known: Path, call: str) -> None:
    """Its rules change, as a server comes back: it waits, and tells at once why."""
    program = refusing(errno.EPERM, call) + COMMAND
    command = ["send", relay.address, room, "hello", "--name", "~nobody"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *command, "--known-servers", str(known)],
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as waiting:  # fmt: skip
        try:
            assert waiting.stderr is not None
            line = waiting.stderr.readline()
        finally:
            waiting.kill()
    assert line.startswith("-!- waiting: cannot connect to ")
    assert f"{relay.port}: Operation not permitted: a firewall of this machine, or {FILTER}" in line
    assert waiting.returncode == -signal.SIGKILL, "it had not ended"


@CAN_BE_REFUSED
@pytest.mark.parametrize(
    ("args", "call", "said"),
    [
        (("ctl", "status"), "connect", "/ctl.sock: Operation not permitted: "),
        (("backup", "create", "BACKUP"), "connect", "/ctl.sock: Operation not permitted: "),
        (("backup", "create", "BACKUP"), "pwrite64", "the system call pwrite64: "),
        (("key", "show"), "uname", "cannot start: "),
    ],
)
def test_a_command_of_the_server(
    relay: Relay, tmp_path: Path, args: tuple[str, ...], call: str, said: str
) -> None:
    placed = [str(tmp_path / one) if one.isupper() else one for one in args]
    program = refusing(errno.EPERM, call) + COMMAND
    done = run_program(program, *placed, "--data", str(relay.data))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("relay: ")
    assert said in line
    assert FILTER in line


@CAN_BE_REFUSED
def test_a_thread_that_cannot_be_started(relay: Relay, room: str, known: Path) -> None:
    """Python does not tell why: filters that know clone alone refuse clone3, in some containers."""
    done = run_program(
        refusing(errno.EPERM, "clone3") + COMMAND,
        "send", relay.address, room, "--name", "~nobody", "--accept-new", "--known-servers",
        str(known), stdin="hello\n",
    )  # fmt: skip
    if done.returncode == 0:
        pytest.skip("this C library starts threads without clone3")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot start a thread: " in done.stderr.splitlines()[-1]
    assert "and clone3 in a filter of system calls" in done.stderr.splitlines()[-1]
