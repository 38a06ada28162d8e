"""``relay ctl users``, ``user`` and ``room``, with clients of the users concerned."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay import BlockingClient, RelayError
from relay.chat.accounts import requests as of_accounts
from relay.chat.rooms import requests as of_rooms
from relay.server.supervisor.runtime_directory import find
from tests.support.cluster import DEADLINE_S, Relay, run_relay, wait_until
from tests.system.test_ctl import asked, ctl


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay of two workers. Each test uses names and rooms of its own."""
    data = tmp_path_factory.mktemp("relay") / "data"
    with Relay(data, workers=2, settings={"accounts.guests": False}) as running:
        yield running


def users(relay: Relay, *args: str) -> dict[str, tuple[str, bool, int, int]]:
    """Return for each account: state, whether it is an operator, devices, sessions."""
    return {
        item["name"]: (item["state"], item["operator"], item["devices"], item["sessions"])
        for item in asked(relay, "users", *args)["items"]
    }


def refused(relay: Relay, *args: str) -> str:
    ended = ctl(relay, *args)
    assert ended.returncode in (1, 2), ended.stdout
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_accounts(relay: Relay, tmp_path: Path) -> None:
    others = set(users(relay))  # these names sort after the others
    people = [BlockingClient(relay.address, name=name) for name in ("ann", "bob", "carol", "dan")]
    for client in people:
        client.connect()
    with BlockingClient(relay.address, name="eve"):
        pass
    bob = people[1]
    wait_until(lambda: users(relay).get("eve", ("", False, 0, 1))[3] == 0, "eve is gone")
    assert {name: found for name, found in users(relay).items() if name not in others} == {
        **dict.fromkeys(("ann", "bob", "carol", "dan"), ("active", False, 1, 1)),
        "eve": ("active", False, 1, 0),
    }
    assert list(users(relay, "--limit", "2")) == ["ann", "bob"]
    assert list(users(relay, "--limit", "2", "--after", "bob")) == ["carol", "dan"]
    assert "bob    active" in ctl(relay, "users").stdout

    assert asked(relay, "user", "promote", "ann") == {
        "name": "ann", "done": "promote", "invitation": None,
    }  # fmt: skip
    assert users(relay)["ann"][1]
    assert ctl(relay, "user", "disable", "Bob").stdout == "bob is disabled\n"
    with pytest.raises(RelayError, match="disabled"):
        bob.send("lobby", "I am out")
    wait_until(lambda: users(relay)["bob"] == ("disabled", False, 1, 0), "the end of his session")
    assert asked(relay, "user", "show", "bob")["state"] == "disabled"
    ctl(relay, "user", "enable", "bob")
    assert users(relay)["bob"][0] == "active"

    made = asked(relay, "user", "add", "frank", "--operator", "--days", "1")
    token = tmp_path / "token"
    token.write_text(made["invitation"])
    token.chmod(0o600)
    ended = run_relay(
        "register", relay.address, "--name", "frank", "--invitation-file", token,
        "--key", token.with_name("frank.key"),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert users(relay)["frank"][:2] == ("active", True)
    assert "removed" in ctl(relay, "user", "rm", "frank", "--yes").stdout
    assert "is removed" not in refused(relay, "user", "enable", "frank")
    assert "there is no such account" in refused(relay, "user", "disable", "nobody-at-all")
    refused(relay, "user", "disable", "x")
    refused(relay, "user", "explode", "ann")
    changes = {(e["handle"], e["change"], e["by"]) for e in relay.events("account_changed")}
    assert ("bob", "disabled", "operator") in changes
    for client in people:
        client.close()


def test_rooms(relay: Relay) -> None:
    with (
        BlockingClient(relay.address, name="oda") as oda,
        BlockingClient(relay.address, name="pia") as pia,
    ):
        for client in (oda, pia):
            client.join("lobby")
        oda.send("lobby", "mine")
        assert ctl(relay, "room", "topic", "Lobby", "about this").returncode == 0
        assert ctl(relay, "room", "role", "lobby", "pia", "moderator").returncode == 0
        shown = asked(relay, "room", "show", "lobby")
        assert shown["topic"] == "about this"
        roles = {person["name"]: person["role"] for person in shown["people"]}
        assert roles == {"oda": "owner", "pia": "moderator"}
        assert "about this" in ctl(relay, "room", "show", "lobby").stdout
        assert ctl(relay, "room", "ban", "lobby", "oda", "--reason", "noise").returncode == 0
        with pytest.raises(RelayError, match="banned"):
            oda.send("lobby", "no")
        asked(relay, "room", "close", "lobby")
        assert asked(relay, "room", "show", "lobby")["closed"]
        asked(relay, "room", "open", "lobby")
        assert not asked(relay, "room", "show", "lobby")["closed"]
        asked(relay, "room", "delete", "lobby", "--yes")
        assert "there is no such room" in refused(relay, "room", "show", "lobby")
    assert "there is no user zoe" in refused(relay, "room", "ban", "lobby", "zoe")
    refused(relay, "room", "enter", "lobby")
    refused(relay, "room", "kind", "lobby", "purple")
    refused(relay, "room", "redact", "lobby", "first")


@pytest.mark.parametrize(
    "question",
    [
        {"do": "user", "name": "quin", "content": "zz"},
        {"do": "user", "name": "quin", "content": "c0"},
        {"do": "user", "name": "quin"},
        {"do": "user", "name": "../..", "content": "9103"},
        {"do": "user", "content": "9103"},
        {"do": "user", "name": "quin", "content": "931bc420" + "00" * 32},
        {"do": "room", "name": "nowhere", "content": "920e00"},
        {"do": "room", "name": "@quin", "content": "920c00"},
        {"do": "users", "limit": 0},
        {"do": "users", "after": 7},
    ],
)
def test_what_makes_no_sense(relay: Relay, question: dict[str, Any]) -> None:
    before = users(relay)
    assert "error" in raw_answer(relay, question)
    assert users(relay) == before


def raw_answer(relay: Relay, question: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(str(find("", relay.data) / "ctl.sock"))
        sock.sendall(json.dumps(question).encode() + b"\n")
        answer: dict[str, Any] = json.loads(sock.makefile("rb").readline())
    return answer


OF_PEOPLE: list[of_accounts.Request] = [
    of_accounts.Block("ann", bytes(32)), of_accounts.Prefer(2, 2), of_accounts.SetKeep(1, 1, 1),
    of_accounts.NameDevice(bytes(32), "x"), of_accounts.Marks(""), of_accounts.Preferences(),
    of_accounts.MayWrite(bytes(32)), of_accounts.Bind(bytes(32), "ann", bytes(32)),
    of_accounts.Register(b"x", b"", True, True, False),
    of_accounts.Release(bytes(32), "ann", bytes(32)),
]  # fmt: skip
OF_MEMBERS: list[of_rooms.Request] = [
    of_rooms.Create(), of_rooms.Enter(), of_rooms.Leave(), of_rooms.Depart(), of_rooms.List(0, ""),
]  # fmt: skip


def test_nobody_acts_in_a_persons_place(relay: Relay) -> None:
    """Not the machine's operator either: a user's preferences are answered to the user's devices
    only.
    """
    with BlockingClient(relay.address, name="nina") as nina:
        nina.send("ninas", "hello")
        chosen = nina.preferences()
        for request in OF_PEOPLE:
            content = of_accounts.pack(request).hex()
            answer = raw_answer(relay, {"do": "user", "name": "nina", "content": content})
            assert answer == {"error": "operators cannot request that"}, request
        for change in OF_MEMBERS:
            content = of_rooms.pack(change, of_rooms.ANYTHING_SEEN).hex()
            answer = raw_answer(relay, {"do": "room", "name": "ninas", "content": content})
            assert "for somebody with an account" in answer.get("error", ""), change
        assert nina.preferences() == chosen
        assert "relay" not in {one.name for one in nina.room_info("ninas").people}
