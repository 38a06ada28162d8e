"""Commands die of the signals that end them, so that a script around them ends, too."""

from __future__ import annotations

import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import DEADLINE_S, Relay, relay_command, wait_until
from tests.support.terminals import Terminal


@pytest.mark.parametrize("command", ["tail", "send", "chat"])
def test_a_script_ends_at_control_c(relay: Relay, room: str, tmp_path: Path, command: str) -> None:
    """A shell loop at a terminal: Ctrl-C ends the loop, not only one iteration."""
    after = tmp_path / "after"
    line = shlex.join(relay_command(command, relay.address, room))
    if command == "chat":
        line += " | cat"  # not at a prompt, where it is a key
    loop = f"while true; do echo begin; {line}; echo status $? >> {after}; done"
    with Terminal(program=["bash", "-c", loop]) as shell:
        shell.shows("begin")
        wait_until(lambda: _connections(relay) >= 1, "connected")
        shell.press("\x03")
        assert shell.ends() == -signal.SIGINT
    assert not after.exists()
    assert "Traceback" not in shell.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_mask_of_the_parent_stops_nothing(
    relay: Relay, room: str, number: signal.Signals
) -> None:
    """The parent process may have blocked signals: they still end the command."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        process = subprocess.Popen(relay_command("tail", relay.address, room))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    with process:
        try:
            wait_until(lambda: _connections(relay) >= 1, "connected")
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == (0 if number == signal.SIGTERM else -number)
        finally:
            process.kill()


def _connections(relay: Relay) -> int:
    return sum(map(len, relay.peers_by_worker().values()))


@pytest.fixture(autouse=True)
def _nobody_connected(relay: Relay) -> None:
    """A connection that another test has left would be taken for the one of this test."""
    wait_until(lambda: _connections(relay) == 0, "no connection")


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("send", signal.SIGINT), ("send", signal.SIGTERM), ("chat", signal.SIGINT),
        ("chat", signal.SIGTERM), ("tail", signal.SIGINT),
    ],
)  # fmt: skip
def test_killed_by_it(relay: Relay, room: str, command: str, number: signal.Signals) -> None:
    """As ``sleep`` is, and without a message: no work was left undone."""
    with subprocess.Popen(
        relay_command(command, relay.address, room),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        wait_until(lambda: _connections(relay) >= 1, "connected")
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == -number
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
