"""The default address: RELAY_ADDRESS, aliases, and the fingerprint stored at the first contact."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from relay import BlockingClient, Message, UsageError
from relay.cli.arguments.aliases import Aliases
from relay.cli.arguments.destination import split
from tests.support.cluster import Relay, run_relay
from tests.support.threads import beside

OTHER = "a" * 52
ADDRESS = f"relay://{OTHER}@host.example:7475"


def texts(relay: Relay, room: str) -> list[str]:
    """Return the texts stored in a room."""
    with BlockingClient(relay.address) as client:
        client.join(room)
        entries = client.history(room).entries
        return [entry.text for entry in entries if isinstance(entry, Message)]


# --- which argument is what -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "host", "rest"),
    [
        (["lobby"], "default", ["lobby", None]),
        (["lobby", "text"], "default", ["lobby", "text"]),
        (["lobby", "relay://x"], "default", ["lobby", "relay://x"]),
        (["relay://host", "lobby"], "host", ["lobby", None]),
        (["host:1", "lobby"], "host", ["lobby", None]),
        (["a.example", "lobby"], "a.example", ["lobby", None]),
        (["LOCALHOST", "lobby"], "localhost", ["lobby", None]),
        (["work", "lobby"], "work.example", ["lobby", None]),
        (["host", "lobby", "text"], "host", ["lobby", "text"]),
        (["work", "lobby", "text"], "work.example", ["lobby", "text"]),
        (["@bob", "text"], "default", ["@bob", "text"]),
        (["host", "@bob"], "default", ["host", "@bob"]),
        (["host", "@bob", "text"], "host", ["@bob", "text"]),
        ([], None, "Missing argument 'ROOM'"),
        (["relay://host"], None, "Missing argument 'ROOM'"),
        (["host", "a", "b", "c"], None, "unexpected extra argument (c)"),
    ],
)
def test_with_a_default(
    typed: list[str], host: str | None, rest: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the number of arguments, and by the form of the first one."""
    Aliases.of_user().add("work", "work.example")
    monkeypatch.setenv("RELAY_ADDRESS", "default")
    if host is None:
        with pytest.raises(Exception, match=str(rest).replace("(", r"\(").replace(")", r"\)")):
            split(typed, ["ROOM"], ["TEXT"])
    else:
        address, values = split(typed, ["ROOM"], ["TEXT"])
        assert (address.host, values) == (host, rest)


@pytest.mark.parametrize("default", ["", "  "])
def test_without_a_default_the_first_is_the_address(
    default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before; an empty variable counts as unset."""
    monkeypatch.setenv("RELAY_ADDRESS", default)
    address, values = split(["lobby", "hello"], ["ROOM"], ["TEXT"])
    assert (address.host, values) == ("lobby", ["hello", None])
    with pytest.raises(Exception, match="Missing argument 'ADDRESS', and RELAY_ADDRESS is not set"):
        split([], [], ["ROOM"])
    with pytest.raises(Exception, match="Missing argument 'ADDRESS', and RELAY_ADDRESS is not set"):
        split(["@bob", "hello"], ["ROOM"], ["TEXT"])


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("history", "lobby"), "Missing argument 'ROOM'"),
        (("send", "lobby", "two words"), "invalid room name 'two words'"),
        (("chat", "lobby"), "cannot connect to lobby"),
    ],
)
def test_who_forgets_the_address_is_told(args: tuple[str, ...], problem: str) -> None:
    """The error has the room: "lobby" is not a host name, or no server answers there."""
    done = run_relay(*args, env={"RELAY_ADDRESS": ""})
    output = " ".join(done.stderr.split())
    assert done.returncode in (1, 2)
    assert problem in output
    assert "('lobby' is the ADDRESS here, because RELAY_ADDRESS is not set)" in output
    assert "is not set" not in run_relay("history", "localhost", env={"RELAY_ADDRESS": ""}).stderr


def test_the_commands(relay: Relay, room: str) -> None:
    """send, tail and chat, with the variable and with an alias."""
    assert run_relay("alias", "add", "here", relay.address).returncode == 0
    assert run_relay("send", "here", room, "by alias").returncode == 0
    assert (
        run_relay("send", room, "by variable", env={"RELAY_ADDRESS": relay.address}).returncode == 0
    )
    assert run_relay("send", room, "by both", env={"RELAY_ADDRESS": "here"}).returncode == 0
    assert (
        run_relay("send", "here", room, "given", env={"RELAY_ADDRESS": "127.0.0.1:1"}).returncode
        == 0
    )
    chat = run_relay("chat", room, "--name", "chatter", env={"RELAY_ADDRESS": relay.address})
    assert chat.returncode == 0, chat.stderr
    assert "by both" in chat.stdout
    assert texts(relay, room) == ["by alias", "by variable", "by both", "given"]


def test_a_wrong_variable_is_named(room: str) -> None:
    done = run_relay("send", room, "x", env={"RELAY_ADDRESS": "http://host"})
    assert done.returncode == 2
    assert done.stderr.startswith("relay: RELAY_ADDRESS: not an address of a relay: 'http://host'")


# --- aliases --------------------------------------------------------------------------------------
def test_add_list_remove() -> None:
    """Other content is kept: comments, a link."""
    aliases = Aliases.of_user()
    aliases.path.parent.mkdir(parents=True, exist_ok=True)
    real = aliases.path.with_name("elsewhere")
    real.write_text("# mine\nold old.example:1")
    aliases.path.symlink_to(real)
    assert run_relay("alias", "add", "work", ADDRESS).returncode == 0
    assert run_relay("alias", "add", "work", ADDRESS).returncode == 0
    listed = run_relay("alias", "list")
    assert listed.stdout == f"old old.example:1\nwork {ADDRESS}\n"
    assert run_relay("alias", "remove", "old").returncode == 0
    assert real.read_text() == f"# mine\nwork {ADDRESS}\n"
    assert aliases.path.is_symlink()
    assert sorted(path.name for path in aliases.path.parent.iterdir()) == [
        "aliases", "aliases.lock", "elsewhere",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("add", "Work", "host"), "invalid alias 'Work'"),
        (("add", "a.b", "host"), "invalid alias 'a.b'"),
        (("add", "localhost", "host"), "invalid alias 'localhost'"),
        (("add", "x" * 33, "host"), "invalid alias"),
        (("add", "", "host"), "invalid alias ''"),
        (("add", "work", "http://host"), "it does not begin with relay://"),
        (("add", "work", "relay://short@host"), "the fingerprint has 5 characters"),
        (("remove", "work"), "there is no alias 'work'"),
        (("add", "taken", "other"), "the alias 'taken' is relay://first:7475; remove it first"),
        (("add", "work"), "Missing argument 'ADDRESS'"),
    ],
)
def test_mistakes(args: tuple[str, ...], problem: str) -> None:
    """A one-line error; nothing is written."""
    Aliases.of_user().add("taken", "first")
    done = run_relay("alias", *args)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert Aliases.of_user().all() == {"taken": "relay://first:7475"}


def test_alias_alone_shows_its_commands() -> None:
    done = run_relay("alias")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: relay alias")


def test_a_damaged_file_is_named() -> None:
    """The error has the line; a full address needs no file."""
    aliases = Aliases.of_user()
    aliases.path.parent.mkdir(parents=True, exist_ok=True)
    for content in (b"work\n", b"work a b\n", b"a.b host\n", b"\xff\xff"):
        aliases.path.write_bytes(content)
        with pytest.raises(UsageError, match=r"aliases(, line 1|: not UTF-8)"):
            aliases.all()
        done = run_relay("send", "work", "lobby", "x")
        assert done.returncode == 2
        assert str(aliases.path) in done.stderr


@pytest.mark.parametrize("char", ["\u2028", "\x85", "\x0b", "\x1c", "\r"])
def test_only_a_newline_ends_a_line(tmp_path: Path, char: str) -> None:
    """Otherwise an alias would be listed that cannot be removed."""
    path = tmp_path / "aliases"
    path.write_text(f"work host{char}home other\n", newline="")
    for use in (Aliases(path).all, lambda: Aliases(path).remove("home")):
        with pytest.raises(UsageError, match="line 1: not of the form"):
            use()


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    """Under a lock: each reads what the previous one has written."""
    path = tmp_path / "aliases"
    with beside(*(partial(Aliases(path).add, f"n{n}", "host") for n in range(20))):
        pass
    assert sorted(Aliases(path).all()) == sorted(f"n{n}" for n in range(20))


def test_the_file_stays_as_it_was_arranged(tmp_path: Path) -> None:
    """Links, hard links and mode: the file is not replaced by a new one."""
    real = tmp_path / "real"
    real.write_text("# mine\nold host.example")
    real.chmod(0o640)
    (tmp_path / "hard").hardlink_to(real)
    path = tmp_path / "aliases"
    path.symlink_to("real")
    aliases = Aliases(path)
    aliases.add("new", "host")
    assert real.read_text() == "# mine\nold host.example\nnew relay://host:7475\n"
    aliases.remove("old")
    assert real.read_text() == "# mine\nnew relay://host:7475\n"
    assert (tmp_path / "hard").samefile(real)
    assert path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640


def test_what_is_no_file_of_aliases(tmp_path: Path) -> None:
    """Refused with a one-line error, and not changed: a device is not replaced, a pipe not waited
    for.
    """
    path = tmp_path / "aliases"
    path.symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        Aliases(path).add("work", "host")
    assert (tmp_path / "pipe").is_fifo()
    path.unlink()
    path.symlink_to(os.devnull)  # nothing is ever appended to it, as a failure would lose data
    assert Aliases(path).all() == {}


# --- the fingerprint ------------------------------------------------------------------------------
def test_the_first_full_address_is_remembered(relay: Relay, room: str) -> None:
    """Then HOST:PORT is enough, and another fingerprint is refused."""
    place = f"127.0.0.1:{relay.port}"
    unknown = run_relay("send", place, room, "x")
    assert unknown.returncode == 2
    first = run_relay("send", relay.address, room, "full")
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    assert run_relay("send", place, room, "short").returncode == 0
    assert run_relay("send", relay.address, room, "full again").returncode == 0
    other = run_relay("send", f"relay://{OTHER}@{place}", room, "x")
    assert other.returncode == 3
    assert "another fingerprint than the one that is remembered" in other.stderr
    assert "known_servers, line 1" in other.stderr
    assert OTHER in other.stderr
    assert texts(relay, room) == ["full", "short", "full again"]


def test_a_wrong_fingerprint_is_not_remembered(relay: Relay, room: str) -> None:
    """The server has not proved that key."""
    done = run_relay("send", f"relay://{OTHER}@127.0.0.1:{relay.port}", room, "x")
    assert done.returncode == 3
    assert "HAS CHANGED" in done.stderr
    assert run_relay("send", relay.address, room, "x").returncode == 0


def test_what_cannot_be_remembered_is_no_reason_to_fail(relay: Relay, room: str) -> None:
    """No home directory, a damaged file, a directory in its place: the address is complete."""
    assert (
        run_relay(
            "send", relay.address, room, "x", env={"HOME": "", "XDG_CONFIG_HOME": ""}
        ).returncode
        == 0
    )
    damaged = Path(os.environ["XDG_CONFIG_HOME"]) / "damaged"
    damaged.write_text("[host]:x relay-key-v1 y\n")
    for place in (str(damaged), str(damaged.parent), "/dev/full", "/proc/none/known"):
        done = run_relay("send", relay.address, room, "x", env={"RELAY_KNOWN_SERVERS": place})
        assert (done.returncode, done.stderr) == (0, "")
    assert damaged.read_text() == "[host]:x relay-key-v1 y\n"
