"""Where a program finds the passphrase of its key: a file or a descriptor."""

from __future__ import annotations

import os
import signal
import termios
from pathlib import Path

import pytest

from relay.cli.connection import passphrase
from relay.cli.connection.passphrase import BYTES_MAX, PASSPHRASE_VARIABLE, passphrase_for
from relay.errors import UsageError
from tests.support.cluster import Relay
from tests.support.terminals import Terminal

KEY = Path("key")


@pytest.fixture(autouse=True)
def nothing_read() -> None:
    """A command is a process of its own; in these tests descriptor numbers are reused."""
    passphrase._read.cache_clear()


def piped(data: bytes) -> str:
    """Return the setting for a pipe with this content."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(data)
    return f"fd:{read}"


def test_the_first_line_of_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe can be read once, and its content is remembered."""
    monkeypatch.setenv(PASSPHRASE_VARIABLE, piped(b"a pass\xc3\xa9\r\nmore\n"))
    assert passphrase_for(KEY) == "a pass\u00e9"
    assert passphrase_for(KEY) == "a pass\u00e9"


@pytest.mark.parametrize(
    "given",
    ["fd:", "fd:x", "fd:-1", "fd:1000000", "fd:" + "9" * 30, "fd:\u00b2", "/dev/zero", "/", "gone"],
)
def test_what_cannot_be_read(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, given)
    with pytest.raises(UsageError, match=f"^{PASSPHRASE_VARIABLE}: cannot read "):
        passphrase_for(KEY)


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\n", b"x" * (BYTES_MAX + 1)])
def test_what_is_no_passphrase(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """A passphrase that is too long is refused, not truncated."""
    monkeypatch.setenv(PASSPHRASE_VARIABLE, piped(data))
    with pytest.raises(UsageError, match=f"^{PASSPHRASE_VARIABLE}: cannot read "):
        passphrase_for(KEY)


def test_typed_on_a_terminal_of_another_encoding(relay: Relay) -> None:
    """A one-line error, without the input."""
    with Terminal("register", relay.address, "--name", "latin", "--passphrase") as terminal:
        terminal.shows("Passphrase for the new key:")
        terminal.press_bytes(b"m\xfcll\r")
        assert terminal.ends() == 2
        assert "what was typed is not UTF-8 text" in terminal.text
        assert "ll" not in terminal.text.partition("Passphrase")[2].partition("relay:")[0]
        assert b"\xfc" not in terminal.written


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_question_gives_the_echo_back(relay: Relay, number: signal.Signals) -> None:
    with Terminal("register", relay.address, "--name", "quit", "--passphrase") as terminal:
        terminal.shows("Passphrase for the new key:")
        assert not terminal.modes[3] & termios.ECHO
        os.kill(terminal.process.pid, number)
        assert terminal.ends() == -number
        assert terminal.modes[3] & termios.ECHO
