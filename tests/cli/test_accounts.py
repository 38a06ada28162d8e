"""``relay register``, ``device``, ``invite`` and ``user``, as users run them."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli.client_commands.device import removed_if_refused
from relay.client.errors import ConnectFailed
from relay.client.refusals import NotAMember, Unavailable
from tests.support.cluster import DEADLINE_S, Relay, relay_command, run_relay, wait_until
from tests.support.tails import Tail
from tests.support.terminals import Terminal

"""Each command is a process of its own, and some tests run a dozen of them."""
TOKEN = re.compile(r"^[a-z2-7]{52}$", re.MULTILINE)


@pytest.fixture
def by_invitation(tmp_path: Path) -> Iterator[Relay]:
    """A relay with the defaults of ``relay serve``; clients claim no name by themselves."""
    settings = {"accounts.registration": "kept", "accounts.guests": False}
    with Relay(tmp_path / "data", workers=2, settings=settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RELAY_REGISTER")
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path / "keys"))


def done(*args: str | os.PathLike[str], keys: Path | None = None, status: int = 0) -> str:
    """Run a command; return what it printed, its errors too."""
    env = {} if keys is None else {"RELAY_KEYS": str(keys)}
    found = run_relay(*args, env=env)
    output = found.stdout + found.stderr
    assert found.returncode == status, output
    assert "Traceback" not in output
    return output


def token_in(text: str) -> str:
    found = TOKEN.search(text)
    assert found is not None, text
    return found.group()


def an_operator(relay: Relay, name: str = "opera") -> None:
    file = relay.data / "first-invitation"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert any(str(file) in line for line in relay.announced), "serve prints where the token is"
    output = done("register", relay.address, "--name", name, "--invitation-file", file)
    assert f"registered as {name}" in output
    assert not file.exists(), "it is valid once"


def test_the_first_invitation_and_those_that_follow(by_invitation: Relay, tmp_path: Path) -> None:
    relay, address = by_invitation, by_invitation.address
    output = done("register", address, "--name", "bob", status=1)
    assert "INVITATION_NEEDED" in output
    assert "relay invite" in output
    an_operator(relay)
    token = token_in(done("invite", address))
    bob = tmp_path / "bob"
    done("register", address, "--name", "bob", "--invitation", token, keys=bob)
    assert "NOT_ALLOWED" in done("invite", address, keys=bob, status=1)
    output = done("register", address, "--name", "rob", "--invitation", token, status=1)
    assert "INVITATION_NEEDED" in output
    later = token_in(done("invite", address))
    for refused in ("bob", "b0b"):  # a mistyped name does not use it up
        done("register", address, "--name", refused, "--invitation", later, status=1)
    done("register", address, "--name", "ann", "--invitation", later, keys=tmp_path / "ann")
    assert "used, for the name 'bob'" in done("invite", address, "--revoke", token, status=1)
    token = token_in(done("invite", address))
    assert "NOT_ALLOWED" in done("invite", address, "--revoke", token, keys=bob, status=1)
    assert "revoked" in done("invite", address, "--revoke", token.upper())
    assert "revoked" in done("invite", address, "--revoke", token), "again"
    output = done("register", address, "--name", "rob", "--invitation", token, status=1)
    assert "INVITATION_NEEDED" in output
    assert "52 characters" in done("invite", address, "--revoke", token[:-1], status=2)
    assert "no such invitation" in done("invite", address, "--revoke", "a" * 52, status=1)
    token = token_in(done("invite", address))
    assert relay.stop() == 0
    done("invite", "--data", relay.data, "--revoke", token)
    with Relay(relay.data, settings={"accounts.registration": "kept"}) as again:
        line = ["register", again.address, "--name", "rob", "--invitation", token]
        output = done(*line, status=1)
        assert "INVITATION_NEEDED" in output
        assert "for another one" in output
        assert "--invitation TEXT" not in output, "they have an account"


def test_invitations_that_expire(by_invitation: Relay, tmp_path: Path) -> None:
    """By the clock: an invitation for less than a second has expired when it is used."""
    relay, address = by_invitation, by_invitation.address
    an_operator(relay)
    soon = ("--days", "0.000001")
    token = token_in(done("invite", address, *soon))
    kept = token_in(done("user", "add", address, "kim", *soon))
    for name, one, said in (("rob", token, "no longer valid"), ("kim", kept, "has expired")):
        output = done("register", address, "--name", name, "--invitation", one, status=1)
        assert said in output
        assert "for another one" in output
    assert "has expired" in done("user", "show", address, "kim")
    again = token_in(done("user", "add", address, "kim"))
    done("register", address, "--name", "kim", "--invitation", again, keys=tmp_path / "kim")


def test_a_server_that_is_closed(tmp_path: Path) -> None:
    """Its operator registers as usual; others are told to ask for an invitation; old ones
    are void.
    """
    data = tmp_path / "data"
    with Relay(data, settings={"accounts.registration": "invite"}) as relay:
        an_operator(relay)
        before = token_in(done("invite", relay.address))
    with Relay(data, settings={"accounts.registration": "closed"}) as relay:
        address, mallory = relay.address, tmp_path / "mallory"
        for invitation in ([], ["--invitation", before]):
            line = ["register", address, "--name", "mallory", *invitation]
            output = done(*line, keys=mallory, status=1)
            assert "REGISTRATION_CLOSED" in output
            assert "relay user add" in output
            assert not list(mallory.rglob("*.key")), "a key for a name that was not registered"
        output = done("invite", address, status=1)
        assert "relay user add NAME" in output
        token = token_in(done("user", "add", address, "bob"))
        output = done("register", address, "--name", "rob", "--invitation", token, status=1)
        assert "INVITATION_NEEDED" in output
        bob = tmp_path / "bob"
        done("register", address, "--name", "bob", "--invitation", token, keys=bob)
        token = token_in(done("invite", address, "--operator"))
        done("register", address, "--name", "ada", "--invitation", token, keys=tmp_path / "ada")
    assert "registration is closed" in done("invite", "--data", data, status=1)
    with Relay(data, settings={"accounts.registration": "invite"}) as relay:
        line = ["register", relay.address, "--name", "mallory", "--invitation", before]
        done(*line, keys=mallory)


def requesting(address: str, name: str, keys: Path) -> subprocess.Popen[str]:
    """Start a request that the key for a name becomes a device."""
    return subprocess.Popen(
        relay_command("device", "request", address, "--name", name),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RELAY_KEYS": str(keys)},
    )


def test_a_second_device(relay: Relay, tmp_path: Path) -> None:
    """Requested, approved, used, and removed while it is connected."""
    address, name = relay.address, "bob"
    bob, phone = tmp_path / "bob", tmp_path / "phone"
    done("register", address, "--name", name, keys=bob)
    with requesting(address, name, phone) as request:
        assert request.stdout is not None
        key = request.stdout.readline().split()[-1]
        # a repeated request while the first one still runs
        with requesting(address, name, phone) as again:
            assert again.stdout is not None
            assert again.stdout.readline().split()[-1] == key
            assert "approved" in done("device", "approve", address, key, keys=bob)
            for one in (request, again):
                assert one.stdout is not None
                assert f"is now a device of {name}" in one.stdout.read()
                assert one.wait(DEADLINE_S) == 0
    done("device", "rename", address, key, "phone", keys=bob)
    for nothing in ("", " "):  # the other one has no label
        output = done("device", "remove", address, nothing, keys=bob, status=2)
        assert "expected a device" in output
    with subprocess.Popen(
        relay_command("tail", address, "lobby"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RELAY_KEYS": str(phone)},
    ) as tail:
        listed = done("device", "list", address, keys=phone)
        assert f"* {key} phone\n" in listed
        assert "removed" in done("device", "remove", address, "phone", keys=bob)
        assert tail.wait(DEADLINE_S) == 1
        assert tail.stderr is not None
        told = tail.stderr.read()
        assert "REVOKED" in told or "this is not a device of" in told
    output = done("send", address, "lobby", "stolen", keys=phone, status=1)
    assert f"this is not a device of '{name}': it was removed" in output
    assert f"  {key} removed\n" in done("device", "list", address, keys=bob)
    # restored: a removed key cannot be used again, so it has another one
    with requesting(address, name, phone) as request:
        assert request.stdout is not None
        assert (another := request.stdout.readline().split()[-1]) != key
        assert "approved" in done("device", "approve", address, another, keys=bob)
        assert f"is now a device of {name}" in request.stdout.read()
    done("send", address, "lobby", "found", keys=phone)
    assert f"is now a device of {name}" in done(
        "device", "request", address, "--name", name, keys=phone
    )


def test_a_device_of_nobody(relay: Relay, tmp_path: Path) -> None:
    """A mistyped name is refused at once, and nothing is kept."""
    line = ["device", "request", relay.address, "--name", "no-such-person"]
    output = done(*line, keys=tmp_path / "keys", status=1)
    assert "there is no account 'no-such-person' at this server: give its name" in output
    assert not [path for path in (tmp_path / "keys").rglob("*") if path.is_file()]


def test_what_an_operator_does(by_invitation: Relay, tmp_path: Path) -> None:
    relay, address = by_invitation, by_invitation.address
    an_operator(relay)
    bob = tmp_path / "bob"
    token = token_in(done("user", "add", address, "bob"))
    assert "bob reserved, 0 devices" in done("user", "list", address)
    done("register", address, "--name", "bob", "--invitation", token, keys=bob)
    assert "bob active, 1 device" in done("user", "show", address, "bob")
    done("user", "disable", address, "bob")
    assert "DISABLED" in done("send", address, "lobby", "x", keys=bob, status=1)
    done("user", "enable", address, "bob")
    done("send", address, "lobby", "x", keys=bob)
    done("device", "list", address, "bob")
    token = token_in(done("user", "reset", address, "bob", "--yes"))
    output = done("send", address, "lobby", "x", keys=bob, status=1)
    assert "the account 'bob' no longer exists at this server: an operator has reset" in output
    assert "bob.key: no command takes it once it is moved away" in output
    done("register", address, "--name", "bob", "--invitation", token, keys=bob)
    done("send", address, "lobby", "again", keys=bob)
    _unverified_until_accepted(address)
    done("user", "rm", address, "bob", "--yes")
    assert "bob removed" in done("user", "list", address)
    assert "no such account" in done("user", "disable", address, "bob", status=1)


def _unverified_until_accepted(address: str) -> None:
    """The name has another account, as after an operator's reset: users who knew it decide."""
    for _ in range(2):
        output = done("history", address, "lobby", "-n", "1")
        assert "bob (unverified)| again" in output
        assert "WARNING" in output
    assert '"unverified":' in done("history", address, "lobby", "-n", "1", "--json")
    shown = done("device", "accept", address, "@bob", status=1)
    assert "before: account" in shown
    code = shown.split("--code ")[1].split()[0]
    assert "nothing was accepted" in done(
        "device", "accept", address, "bob", "--code", "x", status=1
    )
    assert "accepted" in done("device", "accept", address, "bob", "--code", code)
    assert "bob| again" in done("history", address, "lobby", "-n", "1")
    assert "nothing contradicts" in done("device", "accept", address, "bob")


def test_what_operators_do_to_themselves(by_invitation: Relay, tmp_path: Path) -> None:
    """It succeeds, and a reset prints the way to log in again, though it ends the own session."""
    address, more = by_invitation.address, ["--data", str(by_invitation.data)]
    an_operator(by_invitation)
    token = token_in(done("user", "reset", address, "opera", "--yes"))
    done("register", address, "--name", "opera", "--invitation", token)
    for change in ("demote", "disable"):
        assert "give --yes" in done("user", change, address, "Opera", status=2)
    assert "opera active operator" in done("user", "show", address, "opera")
    for change in ("demote", "disable", "rm"):
        assert "the only operator" in done("user", change, address, "opera", "--yes", status=1)
    assert "the only operator" in done("account", "delete", address, "--yes", status=1)
    token, keys = token_in(done("user", "add", address, "carl", "--operator")), tmp_path / "carl"
    done("register", address, "--name", "carl", "--invitation", token, keys=keys)
    assert "opera is not an operator" in done("user", "demote", address, "opera", "--yes")
    assert "NOT_ALLOWED" in done("user", "list", address, status=1)
    done("ctl", *more, "user", "promote", "opera")
    assert "opera is disabled" in done("user", "disable", address, "opera", "--yes")
    done("ctl", *more, "user", "enable", "opera")
    done("ctl", *more, "user", "disable", "carl")
    assert "no operator is left" in done("ctl", *more, "user", "disable", "opera")
    for name in ("opera", "carl"):
        done("ctl", *more, "user", "enable", name)
    for asked in (("ctl", *more, "user", "show"), ("user", "show", address)):
        assert "there is no account 'nobody'" in done(*asked, "nobody", status=1)
    assert "the account carl is deleted" in done("account", "delete", address, "--yes", keys=keys)
    assert "you have no device key at this server" in done(
        "history", address, "lobby", keys=keys, status=1
    )
    assert "the only operator" in done("user", "rm", address, "opera", "--yes", status=1)


def test_a_guest(relay: Relay) -> None:
    """With a name that has no account; needs neither key nor registration, and creates none."""
    address = relay.address
    done("send", address, "garden", "x", "--name", "~Visitor")
    assert "~visitor| x" in done("history", address, "garden", "--name", "~visitor")
    assert "garden public" in done("room", "list", address, "--name", "~visitor")
    assert "NOT_ALLOWED" in done("room", "enter", address, "garden", "--name", "~visitor", status=1)
    done("register", address, "--name", "garden-keeper")
    assert "~visitor| x" in done("history", address, "garden", "--name", "~visitor")
    assert "this needs an account" in done("register", address, "--name", "~visitor", status=2)
    assert "invalid name '~a'" in done("send", address, "garden", "x", "--name", "~a", status=2)
    assert "invalid name '~root'" in done(
        "send", address, "garden", "x", "--name", "~root", status=2
    )


def test_no_guests(by_invitation: Relay) -> None:
    """Where guests are not allowed, the error tells that."""
    output = done("send", by_invitation.address, "lobby", "x", "--name", "~bob", status=1)
    assert "NO_GUESTS" in output


def test_offline(by_invitation: Relay) -> None:
    """On the data directory of a stopped relay; refused while it runs."""
    relay, data = by_invitation, by_invitation.data
    assert "in use" in done("user", "list", "--data", data, status=1)
    relay.stop()
    token = token_in(done("user", "add", "carol", "--operator", "--data", data))
    assert "carol reserved operator" in done("user", "list", "--data", data)
    other = token_in(done("invite", "--data", data))
    relay.start()
    done("register", relay.address, "--name", "carol", "--invitation", token)
    assert "carol active operator" in done("user", "list", relay.address)
    done("register", relay.address, "--name", "dave", "--invitation", other)
    assert "not the data directory" in done("user", "list", "--data", data / "logs", status=1)


def test_a_key_file_for_a_program(relay: Relay, tmp_path: Path) -> None:
    key = tmp_path / "bot.key"
    missing = done("send", relay.address, "bots", "x", "--key", key, status=2)
    assert "relay register --key" in missing
    done("register", relay.address, "--name", "the-bot", "--key", key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    done("register", relay.address, "--name", "the-bot", "--key", key)
    done("send", relay.address, "bots", "beep", "--key", key)
    with Tail(relay.address, "bots", "--since", "0", "--key", str(key)) as tail:
        assert tail.has(1) == ["beep"]
        assert tail.entries[0]["sender"] == "the-bot"
        assert re.fullmatch("[0-9a-f]{32}", str(tail.entries[0]["device"]))
    for no_file in ("/", "."):
        for command in ("register", "device request"):
            words = [*command.split(), relay.address, "--name", "the-bot", "--key", no_file]
            assert "Is a directory" in done(*words, status=2)
    key.chmod(0o644)
    assert "open to others" in done("send", relay.address, "bots", "x", "--key", key, status=2)


def test_a_name_that_is_not_granted_leaves_no_key(relay: Relay, tmp_path: Path) -> None:
    """Later commands would log in with the key: it belongs to a name of another user."""
    address = relay.address
    done("register", address, "--name", "granted", keys=tmp_path / "hers")
    bot, secret = tmp_path / "bot.key", tmp_path / "secret"
    secret.write_text("x\n")
    secret.chmod(0o600)
    for more in (["--key", str(bot)], ["--passphrase"], []):
        env = {"RELAY_KEYS": str(tmp_path / "his"), "RELAY_KEY_PASSPHRASE": str(secret)}
        ended = run_relay("register", address, "--name", "granted", *more, env=env)
        assert "belongs to somebody else" in ended.stderr
    assert not bot.exists()
    assert not list((tmp_path / "his").rglob("*.key"))
    done("register", address, "--name", "another-bot", "--key", bot)
    done("send", address, "lobby", "x", "--key", bot)
    done("register", address, "--name", "granted", "--key", bot, status=1)
    assert bot.exists(), "the key of another name"


def test_a_script_claims_no_name(relay: Relay, tmp_path: Path) -> None:
    output = done("send", relay.address, "lobby", "x", status=1)
    assert "relay: you have no device key at this server: register a name" in output
    assert "--key" in output  # not the wording of the library
    assert not list((tmp_path / "keys").rglob("*.key"))


def test_a_passphrase_needs_a_terminal(relay: Relay, tmp_path: Path) -> None:
    """A one-line error and no key file, instead of a prompt into a pipe."""
    key = tmp_path / "key"
    found = run_relay("register", relay.address, "--name", "pia", "--key", str(key), "--passphrase")
    assert (found.returncode, found.stdout) == (2, "")
    assert "needs a terminal to ask at" in found.stderr.splitlines()[-1]
    assert "Warning" not in found.stderr
    assert not key.exists()


def test_a_refusal_after_the_login_costs_no_key(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name just claimed is kept, whatever mistake the command makes then."""
    monkeypatch.setenv("RELAY_REGISTER", "1")
    output = done("device", "list", relay.address, "not a name", "--name", "fay", status=1)
    assert "NAME_INVALID" in output
    assert len(list((tmp_path / "keys").rglob("fay.key"))) == 1
    done("send", relay.address, "lobby", "still fay", "--name", "fay")


def test_a_refusal_tells_of_what_was_asked(by_invitation: Relay) -> None:
    """Not to the login: the error does not suggest another name because a third one is taken."""
    an_operator(by_invitation)
    output = done("user", "add", by_invitation.address, "opera", status=1)
    assert "NAME_TAKEN" in output
    assert "--name" not in output


def test_the_passphrase_of_a_key(relay: Relay, tmp_path: Path) -> None:
    """Asked for once, changed, removed; programs read it from a file."""
    kept = {"RELAY_KEYS": str(tmp_path / "own")}
    with Terminal("register", relay.address, "--name", "gina", "--passphrase", env=kept) as gina:
        gina.shows("Passphrase for the new key")
        gina.press("first\r")
        gina.shows("Repeat for confirmation")
        gina.press("first\r")
        gina.shows("registered as gina")
        gina.shows("this is your only device")
        assert gina.ends() == 0
        assert "Passphrase of" not in gina.text
    who = (relay.address, "--name", "gina")
    without = run_relay("device", "list", *who, env=kept)
    assert without.returncode == 2
    assert "needs its passphrase" in without.stderr
    assert "RELAY_KEY_PASSPHRASE" in without.stderr
    file = tmp_path / "passphrase"
    file.write_text("wrong\n")
    given = kept | {"RELAY_KEY_PASSPHRASE": str(file)}
    assert "open to others" in run_relay("device", "list", *who, env=given).stderr
    file.chmod(0o600)
    assert "the passphrase is wrong" in run_relay("device", "list", *who, env=given).stderr
    file.write_text("first\n")
    assert run_relay("device", "list", *who, env=given).returncode == 0
    with Terminal("account", "delete", *who, env=kept) as gina:
        gina.shows("Passphrase of")
        gina.press("first\r")
        gina.shows("to go on")
        gina.press("\r")
        assert gina.ends() == 1
        assert gina.text.count("Passphrase of") == 1, "it connects twice, and asks once"
    reading, writing = os.pipe()
    os.write(writing, b"not the passphrase\n")
    os.close(writing)
    with Terminal("send", *who, "lobby", env=kept, stdin=reading) as gina:
        os.close(reading)
        gina.shows("Passphrase of")
        gina.press("first\r")
        assert gina.ends() == 0, gina.text
    with Terminal("device", "passphrase", *who, env=kept) as gina:
        gina.shows("Passphrase of")
        gina.press("first\r")
        gina.shows("New passphrase")
        gina.press("\r")
        gina.shows("Repeat for confirmation")
        gina.press("\r")
        gina.shows("has no passphrase now")
        assert gina.ends() == 0
    assert run_relay("device", "list", *who, env=kept).returncode == 0
    assert "not the passphrase" in done("history", *who, "lobby", keys=tmp_path / "own")


def test_a_device_that_removes_itself(relay: Relay) -> None:
    """It reports the removal as a success."""
    done("register", relay.address, "--name", "hans", "--recovery-key")
    listed = done("device", "list", relay.address, "--name", "hans")
    mine = re.search(r"^\* ([a-z2-7]{52})", listed, re.MULTILINE)
    assert mine is not None
    short = mine.group(1)[:5]
    assert "no device is called" in done(
        "device", "remove", relay.address, short, "--name", "hans", status=1
    )
    output = done("device", "remove", relay.address, mine.group(1)[:6], "--name", "hans")
    assert "this is no longer a device of hans" in output
    assert "hans.key.ended" in output
    assert "is no longer valid" in done(
        "send", relay.address, "lobby", "y", "--name", "hans", status=1
    )


@pytest.mark.parametrize(
    ("encoding", "term", "shown"),
    [("utf-8", "xterm", "\x1b[97;40m\N{FULL BLOCK}"), ("utf-8", "dumb", "\N{FULL BLOCK}"),
     ("ascii", "xterm", "")],
)  # fmt: skip
def test_a_key_as_a_code_for_cameras(
    relay: Relay, tmp_path: Path, encoding: str, term: str, shown: str
) -> None:
    """By what the terminal can display; the text is always printed.

    Without half blocks the code would be 37 lines high, more than these terminals have.
    """
    name = f"ivan-{encoding}-{term}"
    done("register", relay.address, "--name", name)
    env = {"RELAY_KEYS": str(tmp_path / "new"), "PYTHONIOENCODING": encoding, "TERM": term}
    with Terminal("device", "request", relay.address, "--name", name, env=env) as new:
        new.shows("relay device approve")
        new.shows("waiting for one of your devices")
        assert shown in new.text
        assert ("\x1b" in new.text) == (encoding == "utf-8" and term == "xterm")
        assert "error" not in new.text


def test_a_recovery_key(relay: Relay, tmp_path: Path) -> None:
    lost, found = tmp_path / "lost", tmp_path / "found"
    output = done("register", relay.address, "--name", "erin", "--recovery-key", keys=lost)
    paper = re.search(r"^ +([a-z2-7]{52})$", output, re.MULTILINE)
    assert paper is not None
    restored = run_relay(
        "device", "restore", relay.address, "--name", "erin",
        text=f"{paper.group(1)}\n", env={"RELAY_KEYS": str(found)},
    )  # fmt: skip
    assert restored.returncode == 0, restored.stderr
    done("send", relay.address, "lobby", "back again", keys=found)
    wait_until(lambda: "recovery key" in done("device", "list", relay.address, keys=found), "it")


@pytest.mark.parametrize(
    "command",
    [("device", "request"), ("device", "restore"), ("register", "--passphrase")],
    ids=" ".join,
)
def test_a_key_for_a_server_that_is_not_known(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Keys are stored by server: the full address identifies it."""
    output = done(*command, "127.0.0.1:1", "--name", "bob", status=2)
    assert "not known here yet" in output
    assert "relay://FINGERPRINT@HOST" in output
    key = tmp_path / "bob.key"
    if command[0] == "device":
        done(*command, "127.0.0.1:1", "--name", "bob", "--key", key, status=2)
        assert not list(tmp_path.rglob("bob.key*"))


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (NotAMember(6), False),
        (Unavailable(12), True),
        (ConnectFailed("gone"), True),
        (asyncio.CancelledError(), True),
    ],
)
def test_a_key_that_may_have_been_accepted_is_kept(
    tmp_path: Path, error: BaseException, stays: bool
) -> None:
    """``relay device restore``: no other copy exists, and the recovery key may be used up."""
    path = tmp_path / "bob.key"
    path.touch()
    with pytest.raises(type(error)), removed_if_refused(path):
        raise error
    assert path.exists() is stays
