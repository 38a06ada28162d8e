"""``relay export`` and ``relay account``: what users export, choose, and delete."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import DEADLINE_S, Relay, relay_command, run_relay

"""Each command is a process of its own."""


def done(*args: str, status: int = 0) -> str:
    found = run_relay(*args)
    output = found.stdout + found.stderr
    assert found.returncode == status, output
    assert "Traceback" not in output
    return output


def exported(relay: Relay, name: str, *more: str) -> list[dict[str, Any]]:
    found = run_relay("export", relay.address, "--name", name, *more)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.fixture
def people(relay: Relay, room: str) -> tuple[str, str]:
    """Ann, who owns the room, and bob; each has written in it, and to the other."""
    ann, bob = f"ann-{room}", f"bob-{room}"
    address = relay.address
    for name in (ann, bob):
        done("send", address, room, f"{name} here", "--name", name)
    done("send", address, f"@{bob}", f"to {bob}", "--name", ann)
    done("send", address, f"@{ann}", f"to {ann}", "--name", bob)
    return ann, bob


def test_all_that_is_mine(relay: Relay, room: str, people: tuple[str, str]) -> None:
    """And no message of others in rooms, and no erased one."""
    ann, bob = people
    secret = f"hidden-{room}"
    done("room", "create", relay.address, secret, "--unlisted", "--name", ann)
    done("send", relay.address, secret, "by bob", "--name", bob)
    done("account", "set", relay.address, "--writers", "known", "--name", bob)
    done("account", "block", relay.address, ann, "--name", bob)
    lines = exported(relay, bob)
    kinds = Counter(next(key for key in ("account", "settings", "devices", "end", "read",
                                         "membership", "room") if key in line)
                    for line in lines)  # fmt: skip
    assert kinds == {"account": 1, "devices": 1, "settings": 1, "room": 3, "end": 1}
    by_kind = {next(iter(line)): line for line in lines}
    assert by_kind["account"]["account"]["name"] == bob
    assert by_kind["settings"]["settings"]["writers"] == "known"
    assert by_kind["settings"]["settings"]["blocked"] == [ann]
    written = [(line["room"], line["sender"], line["body"]) for line in lines if "body" in line]
    assert sorted(written) == sorted(
        [(f"@{bob}", ann, f"to {bob}"), (f"@{bob}", bob, f"to {ann}"), (room, bob, f"{bob} here")]
    )
    assert lines[-1] == {"end": {"direct_messages": 2, "in_rooms": 1}}
    more = exported(relay, bob, "--room", secret)
    assert [line["body"] for line in more if line.get("room") == secret] == ["by bob"]
    assert {"room": room} in [
        {"room": line["membership"]["name"]}
        for line in exported(relay, ann)
        if "membership" in line
    ]


def test_who_may_write_as_a_person_says_it(relay: Relay, people: tuple[str, str]) -> None:
    """Four choices; last seen visible or not; a bound of what the inbox keeps."""
    ann, bob = people
    address = relay.address
    for choice in ("all", "rooms", "known", "nobody"):
        output = done("account", "set", address, "--writers", choice, "--name", bob)
        assert f"direct messages from {choice}" in output
    refused = run_relay("send", address, f"@{bob}", "x", "--name", ann)
    assert (refused.returncode, "does not accept messages from you" in refused.stderr) == (1, True)
    assert f"{bob} was last here" in done("account", "seen", address, bob, "--name", ann)
    done("account", "set", address, "--seen-by", "nobody", "--name", bob)
    done("account", "seen", address, bob, "--name", ann, status=1)
    output = done(
        "account", "keep", address, "--age", "2d", "--messages", "10", "--yes", "--name", bob
    )
    assert "keeps at most 172800 s, 10 messages" in output
    assert "keeps at most" not in done("account", "keep", address, "--name", bob)
    done("account", "block", address, ann, "--name", bob)
    assert f"blocks {ann}" in done("account", "show", address, "--name", bob)
    done("account", "unblock", address, ann, "--name", bob)
    assert "blocks" not in done("account", "show", address, "--name", bob)
    done("account", "set", address, "--name", bob, status=2)


@pytest.mark.parametrize("messages", ["keep", "erase"])
def test_an_account_ends(
    relay: Relay, room: str, people: tuple[str, str], tmp_path: Path, messages: str
) -> None:
    """Its name cannot be registered again; its messages are kept or erased, as chosen."""
    ann, bob = people
    address = relay.address
    done("account", "delete", address, "--name", bob, status=2)
    output = done("account", "delete", address, "--yes", "--messages", messages, "--name", bob)
    assert f"the account {bob} is deleted" in output
    assert ("2 messages were erased" in output) == (messages == "erase")
    assert f"{bob}.key.ended" in output
    # No key of the deleted account is used: neither by default nor by its name.
    ended = done("send", address, room, "x", "--name", bob, status=1)
    assert f"the key of '{bob}' at this server is no longer valid" in ended
    listed = done("device", "list", address)
    assert bob not in listed.split("\n")[0], listed
    env = {"RELAY_KEYS": str(tmp_path / "others")}
    again = run_relay("register", address, "--name", bob, env=env)
    assert again.returncode == 1
    assert "belongs to somebody else" in again.stderr
    assert "NOT_REGISTERED" in done("send", address, f"@{bob}", "x", "--name", ann, status=1)
    kept = messages == "keep"
    assert (f"{bob} here" in done("history", address, room, "--name", ann)) == kept
    assert (f"to {ann}" in done("history", address, "@me", "--name", ann)) == kept


def test_a_terminal_asks_first(relay: Relay, room: str, people: tuple[str, str]) -> None:
    """By the name of the account; an owner gets a list of the rooms without another owner."""
    ann, _ = people
    for typed, status in (("no", 1), (ann, 0)):
        master, slave = pty.openpty()
        command = relay_command("account", "delete", relay.address, "--name", ann)
        with subprocess.Popen(
            command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            os.close(slave)
            os.write(master, f"{typed}\n".encode())
            _, output = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == status, output
        os.close(master)
        assert f"you are the only owner of {room}" in output
        assert ("is deleted" in output) == (status == 0)
