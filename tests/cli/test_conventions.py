"""What all commands have in common: output for programs, and confirmation of irreversible changes.

Every existing command is checked, so that a new one has both or is listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from relay.cli.main import relay as program
from relay.cli.server_commands.ctl_accounts import ROOM_ACTIONS
from tests.support.cluster import Relay, run_relay
from tests.support.terminals import Terminal

WITHOUT_JSON: Final = {
    "chat": "for people",
    "send": "prints nothing; the exit code tells",
    "register": "as send; the key file is the result",
    "device request": "prints the line to be typed elsewhere",
    "device approve": "as send",
    "device accept": "for people: they compare what it shows",
    "device rename": "as send",
    "device remove": "as send",
    "device passphrase": "for people",
    "device recovery-key": "for paper",
    "device restore": "for people",
    "account block": "as send",
    "account unblock": "as send",
    "account delete": "as send",
    "alias add": "as send",
    "alias remove": "as send",
    "serve": "has a log, which is JSON",
    "key new": "as send; key show --json has the rest",
    "key rotate": "as send; key show --json has the rest",
    "data repair": "for people: what was lost is for them to judge",
    "data import": "as send",
    "config init": "prints a file",
    "config check": "as send",
}
"""Commands without ``--json``, and the reason."""
JSON_ITSELF: Final = {"export", "data export"}
FOR_GOOD: Final = {
    "account delete": [],
    "account keep": ["--messages", "5"],
    "room delete": ["lobby"],
    "room keep": ["lobby", "--age", "1d"],
    "user rm": ["bob"],
    "user reset": ["bob"],
    "user disable": ["anna"],
    "user demote": ["anna"],
    "ctl user": ["rm", "bob"],
    "ctl room": ["delete", "lobby"],
    "key rotate": [],
}
"""Commands that ask, and their arguments: they destroy more than one message, or lock a
user out.
"""
ONE_BY_ONE: Final = {
    "room redact": "one message, named by its number, by who may do it",
    "room kind": "a private room stays private; nothing is lost",
    "device remove": "of a stolen device: there is no time; another key can be approved",
    "device restore": "adds",
    "ctl kick": "they can connect again",
    "data repair": "keeps the old files",
    "data check": "changes nothing",
    "backup restore": "makes a new directory",
    "send": "says when something is refused for good",
    "config init": "makes a new file",
}
"""Commands whose help has the same words, but that do not ask."""
SOUNDS_FINAL: Final = re.compile(
    r"permanently|for good|for ever|cannot be undone|removed|erase|ends? all|^End "
)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Return every command by the words of its command line."""

    def below(command: click.Command, words: list[str]) -> Iterator[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from below(found, [*words, name])
        else:
            yield " ".join(words), command

    yield from below(program, [])


def has(command: click.Command, option: str) -> bool:
    return any(option in parameter.opts for parameter in command.params)


def test_every_command_answers_programs_or_says_why_not() -> None:
    found = {name for name, command in commands() if not has(command, "--json")}
    assert found == WITHOUT_JSON.keys() | JSON_ITSELF


def test_what_lists_or_shows_answers_programs() -> None:
    """Whatever the table contains."""
    listing = [
        (name, command)
        for name, command in commands()
        if name.split()[-1] in ("list", "show", "who", "users", "rooms", "status", "history")
    ]
    assert len(listing) > 10
    assert [name for name, command in listing if not has(command, "--json")] == []


def test_an_action_is_called_as_its_command() -> None:
    """``relay ctl room open lobby`` corresponds to ``relay room open lobby``."""
    rooms = program.get_command(click.Context(program), "room")
    assert isinstance(rooms, click.Group)
    assert set(ROOM_ACTIONS) <= set(rooms.list_commands(click.Context(rooms)))


def test_every_command_that_sounds_final_asks_or_says_why_not() -> None:
    asking = {name for name, command in commands() if has(command, "--yes")}
    assert asking == FOR_GOOD.keys()
    sounding = {name for name, one in commands() if SOUNDS_FINAL.search(one.help or "")}
    assert sounding - asking <= ONE_BY_ONE.keys()
    assert len(sounding & asking) > 5, "the words are those that help uses"


def typed(name: str, relay: Relay) -> list[str]:
    """Return a command line without its options at the end."""
    words = name.split()
    if words[0] == "ctl":
        return ["ctl", "--data", str(relay.data), *words[1:], *FOR_GOOD[name]]
    if words[0] == "key":
        return [*words, "--data", str(relay.data)]
    return [*words, relay.address, *FOR_GOOD[name], "--name", "anna"]


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators anna and carl, anna's room with a message in it, and bob."""
    with Relay(tmp_path_factory.mktemp("lasting") / "data", workers=2) as running:
        for name in ("anna", "bob", "carl"):
            ended = run_relay("send", running.address, "lobby", f"by {name}", "--name", name)
            assert ended.returncode == 0, ended.stderr
        for name in ("anna", "carl"):  # the only operator is not asked: the request is refused
            ended = run_relay("ctl", "--data", running.data, "user", "promote", name)
            assert ended.returncode == 0, ended.stderr
        yield running


def all_is_there(relay: Relay) -> None:
    ended = run_relay("history", relay.address, "lobby", "--name", "anna")
    assert "by bob" in ended.stdout, ended.stderr
    ended = run_relay("user", "list", relay.address, "--name", "anna")
    assert "anna active operator, 1 device" in ended.stdout
    assert "bob active, 1 device" in ended.stdout


@pytest.mark.parametrize("name", [name for name in FOR_GOOD if name != "key rotate"])
def test_nothing_is_lost_without_an_answer(name: str, lasting: Relay) -> None:
    """A script is told about ``--yes``; a terminal asks; any answer but the name changes nothing.

    ``key rotate`` asks only when it is early, and never while the relay runs: test_server_keys.py.
    """
    line = typed(name, lasting)
    ended = run_relay(*line)
    assert ended.returncode == 2
    assert "no terminal to ask at: give --yes" in ended.stderr
    for answer in ("\r", "yes\r", "another\r"):
        with Terminal(*line) as terminal:
            terminal.shows("to go on")
            terminal.press(answer)
            assert terminal.ends() == 1
            assert "nothing was changed" in terminal.text
    all_is_there(lasting)


def test_the_name_is_the_answer(lasting: Relay) -> None:
    """In any spelling; without a terminal, ``--yes`` is the confirmation."""
    address = lasting.address
    for room, more in (("attic", ["--yes"]), ("cellar", [])):
        run_relay("send", address, room, "x", "--name", "anna")
        line = ["room", "delete", address, room, "--name", "anna"]
        if more:
            assert run_relay(*line, *more).returncode == 0
        else:
            with Terminal(*line) as terminal:
                terminal.shows(f"Type {room} to go on")
                terminal.press(f" {room.upper()} \r")
                assert terminal.ends() == 0
        gone = run_relay("room", "show", address, room, "--name", "anna")
        assert "NO_SUCH_ROOM" in gone.stderr


def test_a_wider_choice_is_not_asked_about(lasting: Relay) -> None:
    """Without bounds more is kept than before: nothing is lost."""
    line = ["room", "keep", lasting.address, "lobby", "--name", "anna"]
    assert run_relay(*line).returncode == 0
    assert run_relay("account", "keep", lasting.address, "--name", "anna").returncode == 0


def test_offline_as_well(tmp_path: Path) -> None:
    with Relay(tmp_path / "data") as running:
        run_relay("send", running.address, "lobby", "x", "--name", "bob")
    line = ["user", "rm", "bob", "--data", str(tmp_path / "data")]
    ended = run_relay(*line)
    assert (ended.returncode, "give --yes" in ended.stderr) == (2, True)
    assert run_relay(*line, "--yes").returncode == 0
    listed = run_relay("user", "list", "--data", str(tmp_path / "data"), "--json")
    assert '"state": "removed"' in listed.stdout
