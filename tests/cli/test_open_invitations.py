"""Open invitations: listed offline, by ``relay ctl``, and by an operator at the server."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path

import pytest

from relay.chat.accounts import invitation, requests
from relay.chat.accounts.answers import INVITATIONS_MAX
from relay.chat.partition import partition_of
from relay.server.offline.accounts import OfflineAccounts
from tests.support.cluster import Relay, run_relay

DAY_MS = 86_400_000
IN_ONE_PARTITION = 2 * INVITATIONS_MAX + 3
"""More than one answer has."""


@pytest.fixture(autouse=True)
def _people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RELAY_REGISTER")
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path / "keys"))


def printed(*args: str | os.PathLike[str]) -> str:
    ended = run_relay(*args)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def listed(*args: str | os.PathLike[str]) -> list[str]:
    """Return the ids that a command lists, in its order."""
    lines = printed(*args, "--json").splitlines()
    if args[0] == "ctl":
        (line,) = lines
        return [item["id"] for item in json.loads(line)["items"]]
    return [json.loads(line)["id"] for line in lines]


def made_in_one_partition(data: Path) -> list[str]:
    """Create invitations; return their ids, the next to expire first."""
    ids: list[str] = []
    now_ms = int(time.time() * 1000)
    with OfflineAccounts(data) as accounts:
        while len(ids) < IN_ONE_PARTITION:
            token_hash = invitation.hash_of(secrets.token_bytes(32))
            log = invitation.log_of(token_hash)
            if partition_of(log) == 3:
                expires_ms = now_ms + DAY_MS * (1 + len(ids))
                accounts.ask(log, requests.Invite(token_hash, expires_ms, False))
                ids.append(token_hash.hex())
    return ids


@pytest.mark.parametrize("runs", [True, False])
def test_the_first_one_is_taken_back(tmp_path: Path, runs: bool) -> None:
    """By its ID; then no message suggests to become the operator with it."""
    data = tmp_path / "data"
    with Relay(data, settings={"accounts.registration": "kept"}) as relay:
        (first,) = listed("ctl", "--data", data, "invitations")
        if runs:
            opera = json.loads(
                printed("ctl", "--data", data, "user", "add", "opera", "--operator", "--json")
            )
            printed(
                "register", relay.address, "--name", "opera", "--invitation", opera["invitation"]
            )
            printed("invite", relay.address, "--revoke", first)
            assert listed("invite", relay.address, "--list") == []
        else:
            relay.stop()
            printed("invite", "--revoke", first, "--data", data)
            assert listed("invite", "--list", "--data", data) == []
        assert not (data / "first-invitation").exists()


def test_all_that_are_open(tmp_path: Path) -> None:
    """The same list in three ways: without used and revoked ones."""
    data = tmp_path / "data"
    with Relay(data, workers=2, settings={"accounts.registration": "kept"}) as relay:
        (first,) = listed("ctl", "--data", data, "invitations")
        assert "never    operator  operator" in printed("ctl", "--data", data, "invitations")
        relay.stop()
        assert listed("invite", "--list", "--data", data) == [first]
        made = made_in_one_partition(data)
        assert listed("invite", "--list", "--data", data) == [*made, first]
        relay.start()
        every = ("ctl", "--data", data, "invitations", "--limit", "1000")
        assert listed(*every) == [*made, first]
        answer = json.loads(printed("ctl", "--data", data, "invitations", "--limit", "2", "--json"))
        assert [one["id"] for one in answer["items"]] == made[:2]
        assert answer["more"] == len(made) - 1
        assert answer["items"][0]["by"] == "operator"

        file = data / "first-invitation"
        printed("register", relay.address, "--name", "opera", "--invitation-file", file)
        assert listed("invite", relay.address, "--list") == made
        assert listed(*every) == made
        printed("invite", relay.address, "--revoke", made.pop(5))
        token = printed("invite", relay.address, "--days", "0.5").strip()
        assert listed("invite", relay.address, "--list")[1:] == made
        assert "opera" in printed("invite", relay.address, "--list").splitlines()[1]
        printed("register", relay.address, "--name", "bob", "--invitation", token)
        assert listed(*every) == made
        asked = run_relay("invite", relay.address, "--list", "--name", "bob")
        assert asked.returncode == 1
        assert "NOT_ALLOWED" in asked.stderr
        both = run_relay("invite", relay.address, "--list", "--revoke", made[0])
        assert both.returncode == 2
        assert "cannot be used together" in both.stderr
