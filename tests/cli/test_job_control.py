"""Ctrl-Z in a chat under a real shell: it stops, the shell has the terminal; ``fg`` resumes it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.test_prompt import BETWEEN_PROMPTS
from tests.support.cluster import Relay, relay_command, wait_until
from tests.support.tails import Tail
from tests.support.terminals import Terminal


@pytest.fixture
def shell() -> Iterator[Terminal]:
    """An interactive shell with job control."""
    command = ["bash", "--norc", "--noprofile", "-i"]
    with Terminal(program=command, env={"PS1": "sh$ ", "HISTFILE": ""}) as terminal:
        terminal.shows("sh$ ")
        yield terminal
        for child in psutil.Process(terminal.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
                child.kill()


def chat(shell: Terminal, relay: Relay, room: str) -> int:
    """Start a chat in the shell; return its process id."""
    command = relay_command("chat", relay.address, room, "--name", "anna")
    shell.press(shlex.join(command) + "\r")
    shell.shows(f"{room}>")
    [pid] = [child.pid for child in psutil.Process(shell.process.pid).children()]
    return pid


def is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


@pytest.mark.parametrize("how", ["key", "TSTP", "STOP"])
def test_stopped_and_continued(relay: Relay, room: str, shell: Terminal, how: str) -> None:
    """By the key, or by a signal from outside, even SIGSTOP, which no handler can catch."""
    pid = chat(shell, relay, room)
    shell.press("half")
    shell.shows("half")
    if how == "key":
        shell.press("\x1a")
    else:
        os.kill(pid, getattr(signal, f"SIG{how}"))
    wait_until(lambda: is_stopped(pid), "the chat stops")
    # The shell reads lines again, and the terminal echoes and handles Ctrl-C.
    shell.press("echo in-the-$((1 + 1))nd-shell\r")
    shell.shows("in-the-2nd-shell")
    before = len(shell.text)
    shell.press("fg\r")
    wait_until(lambda: not is_stopped(pid), "the chat continues")
    wait_until(lambda: f"{room}>half" in plain(shell.text[before:]), "the draft is drawn again")
    shell.press(" a line\r")
    with Tail(relay.address, room, "--since", "0") as tail:
        assert tail.has(1) == ["half a line"]
    before = len(shell.text)
    shell.press("\x04")
    wait_until(lambda: "sh$ " in shell.text[before:], "the shell is back")
    assert "Traceback" not in shell.text


def test_a_passphrase_stays_hidden(relay: Relay, shell: Terminal, tmp_path: Path) -> None:
    """Input typed at the shell meanwhile is echoed, and is not echoed any more after ``fg``."""
    key = str(tmp_path / "key")
    command = relay_command(
        "register", relay.address, "--name", "pip", "--key", key, "--passphrase"
    )
    shell.press(shlex.join(command) + "\r")
    shell.shows("Passphrase for the new key:")
    [child] = psutil.Process(shell.process.pid).children()
    shell.press("\x1a")
    wait_until(lambda: is_stopped(child.pid), "it stops")
    shell.press("echo in-the-$((1 + 1))nd-shell\r")
    shell.shows("in-the-2nd-shell")
    shell.press("fg\r")
    shell.shows("what you type is not shown")
    shell.press("hush-hush\r")
    shell.shows("Repeat for confirmation:")
    shell.press("hush-hush\r")
    shell.shows("registered as pip")
    assert "hush-hush" not in shell.text


def test_twice(relay: Relay, room: str, shell: Terminal) -> None:
    """The second time works as the first."""
    pid = chat(shell, relay, room)
    for number in range(2):
        shell.press("\x1a")
        wait_until(lambda: is_stopped(pid), "the chat stops")
        shell.press("fg\r")
        wait_until(lambda: not is_stopped(pid), "the chat continues")
        shell.press(f"line {number}\r")
        mark = f"anna|line{number}"
        wait_until(lambda mark=mark: mark in plain(shell.text), mark)  # type: ignore[misc]


@pytest.mark.parametrize("how", ["key", "STOP"])
def test_between_two_prompts(shell: Terminal, how: str) -> None:
    """Also while a line is handled: the shell has its modes, and input is hidden after ``fg``."""
    shell.press(shlex.join([sys.executable, "-c", BETWEEN_PROMPTS]) + "\r")
    shell.shows("room>")
    shell.press("it\r")
    shell.shows("has it")
    [child] = psutil.Process(shell.process.pid).children()
    if how == "key":
        shell.press("\x1a")
    else:
        os.kill(child.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(child.pid), "it stops")
    shell.press("stty sane; stty -a; echo in-the-$((1 + 1))nd-shell\r")
    shell.shows("in-the-2nd-shell")
    shell.press("fg\r")
    wait_until(lambda: not is_stopped(child.pid), "it continues")
    wait_until(lambda: not shell.modes[3] & termios.ECHO, "keys are hidden again")
    shell.press("\x03")
    wait_until(lambda: not psutil.pid_exists(child.pid), "Ctrl-C ends it")


def plain(text: str) -> str:
    """Return text without control sequences and blanks: either may stand between words."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]| ", "", text)


@pytest.mark.parametrize("program", ["chat", "top"])
def test_the_shell_gets_the_modes_that_it_gave(relay: Relay, room: str, program: str) -> None:
    """All of them, also for a shell that never sets them itself; and its current ones after a
    change.
    """
    args, sign, end = ["chat", relay.address, room, "--name", "anna"], f"{room}>", "\x04"
    if program == "top":
        args, sign, end = ["ctl", "--data", str(relay.data), "top"], "q ends", "q"
    with Terminal(program=["sh", "-i"], env={"PS1": "sh$ "}) as shell:
        shell.shows("sh$ ")
        given = modes(shell, 1)
        shell.press(shlex.join(relay_command(*args)) + "\r")
        shell.shows(sign)
        [child] = psutil.Process(shell.process.pid).children()
        shell.press("\x1a")
        wait_until(lambda: is_stopped(child.pid), "it stops")
        stopped = modes(shell, 2)
        assert stopped == given
        shell.press("stty -ixon ixoff\r")
        other = modes(shell, 3)
        assert other != given
        before = len(shell.text)
        shell.press("fg\r")
        wait_until(lambda: sign in shell.text[before:], sign)
        shell.press(end)
        wait_until(lambda: not child.is_running(), "it ends")
        ended = modes(shell, 4)
        assert ended == other


def modes(shell: Terminal, number: int) -> str:
    """Print the terminal's modes in the shell; each call with another number."""
    shell.press(f"echo modes-{number}=$(stty -g)=\r")
    pattern = re.compile(rf"modes-{number}=([0-9a-f:]+)=")
    wait_until(lambda: pattern.search(shell.text) is not None, f"the modes, {number}")
    found = pattern.search(shell.text)
    assert found is not None
    return found[1]
