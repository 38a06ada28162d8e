"""Commands at a server that holds its key and lies: what they print, and how they end."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from relay.cli.connection import connecting
from relay.cli.main import main
from relay.client.devices.device_key import DeviceKey
from relay.wire import envelopes as wire
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.identity import fingerprint
from tests.support.cluster import run_relay
from tests.support.fake_server import FakeServer
from tests.support.lying_server import (
    EXAGGERATIONS,
    HOSTILE,
    OWNER,
    Lie,
    Lies,
    closes,
    hangs_up,
    lying,
    says_nothing,
    sends,
)
from tests.support.pair import server_key

LINES_MAX = 12
"""What the longest of these answers takes, with the notices."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "history": ("history", "room"),
    "history --json": ("history", "room", "--json"),
    "search": ("history", "room", "--search", "hello"),
    "send": ("send", "room", "hi"),
    "chat": ("chat", "room"),
    "room list": ("room", "list"),
    "room show": ("room", "show", "room"),
    "room show --json": ("room", "show", "room", "--json"),
    "room who": ("room", "who", "room"),
    "room topic": ("room", "topic", "room", "x"),
    "account show": ("account", "show"),
    "account seen": ("account", "seen", "bob"),
    "user list": ("user", "list"),
    "user show": ("user", "show", "bob"),
    "device list": ("device", "list"),
    "device list USER": ("device", "list", "bob"),
    "invite --list": ("invite", "--list"),
    "export": ("export",),
}
GROUPS = ("room", "account", "user", "device")
OBEYED = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
"""Unicode categories of what a terminal obeys or hides."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables with which a command is the account that the server answers to."""
    keys = tmp_path / "keys"
    path = keys / fingerprint(server_key().spki) / "alice.key"
    DeviceKey(OWNER.seed, name="alice").save(path)
    return {"RELAY_KEYS": str(keys), "RELAY_KNOWN_SERVERS": str(tmp_path / "known")}


@pytest.fixture
def nothing() -> Iterator[TextIO]:
    """An empty input."""
    with Path(os.devnull).open() as opened:
        yield opened


def arguments(command: str, address: str) -> list[str]:
    words = COMMANDS[command]
    at = 2 if words[0] in GROUPS else 1
    return [*words[:at], address, "--name", "alice", *words[at:]]


def run(command: str, lies: Lies, environment: dict[str, str]) -> tuple[int, str, str]:
    with FakeServer(lying(lies)) as server:
        ended = run_relay(*arguments(command, server.address), env=environment, text="hello\n")
    assert "Traceback" not in ended.stderr
    assert "RELAY_DEBUG" not in ended.stderr, "an error that nobody foresaw"
    return ended.returncode, ended.stdout, ended.stderr


def is_harmless(text: str) -> bool:
    return all(char == "\n" or unicodedata.category(char) not in OBEYED for char in text)


@pytest.mark.parametrize("command", COMMANDS)
def test_exaggerated_answers(command: str, environment: dict[str, str]) -> None:
    """They are printed as data: few lines, nothing that a terminal obeys or a person believes."""
    code, output, errors = run(command, EXAGGERATIONS, environment)
    printed = output + errors
    assert code == 0, printed
    assert is_harmless(printed)
    assert "\n-!- bob" not in printed, "a line that seems to be the program's"
    assert len(printed.splitlines()) <= LINES_MAX


def error(code: int) -> Lie:
    return sends(lambda asked: wire.Error(asked.request, code, 2**63 - 1, HOSTILE * 15))


REQUEST = {
    "history": wire.History, "search": wire.Search, "chat": wire.Join, "room list": wire.Room,
    "room who": wire.Who, "device list USER": wire.Devices, "user list": wire.Account,
}  # fmt: skip
ENDS: dict[str, Lie] = {
    "an unknown code": error(60_000),
    "unavailable for ever": error(ErrorCode.UNAVAILABLE),
    "violated": closes(CloseCode.PROTOCOL),
    "never msgpack": sends(lambda _: b"\xc1"),
}


@pytest.mark.parametrize("lie", ENDS)
@pytest.mark.parametrize("command", ["history", "chat", "room list", "user list"])
def test_an_answer_that_ends_the_command(
    command: str, lie: str, environment: dict[str, str]
) -> None:
    """With one line, and the status of a failure."""
    code, output, errors = run(command, {REQUEST[command]: ENDS[lie]}, environment)
    assert (code, output) == (1, "")
    assert errors.startswith("relay: ")
    assert len(errors.splitlines()) == 1
    assert is_harmless(errors)


WAITS: dict[str, tuple[Lie, str]] = {
    "never": (says_nothing, ""),
    "hangs up": (hangs_up, "-!- reconnecting: "),
    "overloaded for ever": (closes(CloseCode.OVERLOADED, 65_535), "-!- reconnecting: "),
}


@pytest.mark.parametrize("lie", WAITS)
@pytest.mark.parametrize("command", REQUEST)
def test_no_command_waits_for_ever(
    command: str,
    lie: str,
    environment: dict[str, str],
    nothing: TextIO,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It tells why it waits, and ends."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(connecting, "ANSWER_S", 0.2)
    monkeypatch.setattr("sys.stdin", nothing)
    monkeypatch.setattr("relay.cli.client_commands.chat.ANSWER_S", 0.2)
    answer, told = WAITS[lie]
    with FakeServer(lying({REQUEST[command]: answer})) as server:
        code = main(arguments(command, server.address))
    output, errors = capfd.readouterr()
    assert (code, output) == (1, "")
    *notices, last = errors.splitlines()
    assert "no answer within 0.2 s" in last
    assert any(line.startswith(told) for line in notices) or not told
