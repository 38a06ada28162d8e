"""Data directories written by earlier versions (tests/data) are served completely."""

from __future__ import annotations

import asyncio
import stat
import tarfile
from pathlib import Path

import apsw
import pytest

from relay.client.aio import Client
from relay.client.devices.device_key import DeviceKey
from relay.client.events import Edit, Erased, LogEntry, Message, Reaction, Redaction
from relay.client.refusals import Refused
from relay.store.file.format import FORMAT_VERSION, FORMATS_READ
from relay.store.file.schema import connect_reader, pragma
from tests.support.cluster import DEADLINE_S, Relay, run_relay

KEPT = Path(__file__).parent.parent / "data"
FINGERPRINT = "bbjnvnnx2zycbt3ntbloz7uqedrte3qfmtykmmeguzkylgyaxoia"
BUILDS = [("ci", f"build {n}") for n in range(1, 31)]
LOBBY = [
    *(("alice", text) for text in ("hello", "", "  two  spaces", "Ümläut 漢字 🎉")),
    *(("bob", text) for text in ("hi alice", "bye")),
]
BEFORE_ACCOUNTS: dict[str, list[tuple[str, str]]] = {
    "builds": BUILDS,
    "lobby": LOBBY,
    "large": [("alice", "x" * 24_000)],
    **{
        room: [("carol", f"first in {room}")]
        for room in ("news", "random", "support-desk", "a_room", "zz")
    },
}
"""What format 1 contains, by tests/data/README.md."""


def unpacked(number: int, directory: Path) -> Path:
    """The data directory of a format and, in ``keys`` beside it, its users' keys."""
    for name in ("data", "keys"):
        path = KEPT / f"format-{number}" / f"{name}.tar.xz"
        if not path.exists():
            continue
        with tarfile.open(path) as archive:
            # Python 3.11.2 lacks the argument, 3.12 warns without it; our own archive is trusted.
            archive.extraction_filter = lambda member, _path: member
            archive.extractall(directory / name)  # noqa: S202
    return directory / "data"


def formats(data: Path) -> set[object]:
    """Return the formats of the partition files."""
    found = set()
    for path in (data / "logs").glob("*.sqlite"):
        connection = connect_reader(path)
        assert connection is not None
        found.add(pragma(connection, "user_version"))
        connection.close()
    return found


async def read(client: Client, room: str) -> list[LogEntry]:
    """Read a room, or the client's own inbox, from its first entry to its head."""
    joined = await client.join(room, since=0)
    found: list[LogEntry] = []
    seq = 0
    async with asyncio.timeout(DEADLINE_S):
        while seq < joined.head.seq:
            event = await anext(client)
            if getattr(event, "room", None) == joined.room:
                seq = getattr(event, "seq", seq)
                found += [event] if isinstance(event, LogEntry) else []
    return found


def said(entries: list[LogEntry]) -> list[tuple[str, str]]:
    return [(one.sender, one.body.decode()) for one in entries]


def test_every_format_is_kept() -> None:
    """Whoever adds a format adds a data directory of it."""
    kept = sorted(path.name for path in KEPT.glob("format-*"))
    assert kept == [f"format-{number}" for number in FORMATS_READ]


def test_data_of_a_later_relay_is_refused_and_left_alone(tmp_path: Path) -> None:
    """One partition of a later format is enough: its content cannot be interpreted."""
    data = unpacked(FORMAT_VERSION, tmp_path)
    file = min((data / "logs").glob("*.sqlite"))
    connection = apsw.Connection(str(file))
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION + 1}")
    connection.close()
    files = {path: path.read_bytes() for path in (data / "logs").glob("*.sqlite")}
    refused = run_relay("serve", "--data", data, "--bind", "127.0.0.1:0")
    assert refused.returncode == 1
    assert f"has format {FORMAT_VERSION + 1}; this Relay reads formats 1 to" in refused.stderr
    assert {path: path.read_bytes() for path in files} == files


async def test_before_there_were_accounts(tmp_path: Path) -> None:
    data = unpacked(1, tmp_path)
    assert stat.S_IMODE((data / "server.key").stat().st_mode) == 0o600
    assert formats(data) == {1}
    with Relay(data, workers=2) as relay:
        assert FINGERPRINT in relay.address  # clients have this server's key pinned
        async with Client(relay.address, name="reader") as client:
            for room, expected in BEFORE_ACCOUNTS.items():
                found = await read(client, room)
                assert said(found) == expected
                assert [each.seq for each in found] == list(range(1, len(expected) + 1))
                stored = await client.send(room, "today")
                assert stored.seq == len(expected) + 1
    assert formats(data) == {FORMAT_VERSION}


@pytest.mark.parametrize("number", [one for one in FORMATS_READ if one > 1])
async def test_accounts_rooms_and_messages_are_there(number: int, tmp_path: Path) -> None:
    """Everything that the format has is served, and can be changed."""
    data = unpacked(number, tmp_path)
    assert formats(data) == {number}
    [keys] = (tmp_path / "keys").iterdir()

    def person(name: str) -> Client:
        return Client(relay.address, name=name, key=DeviceKey.load(keys / f"{name}.key"))

    with Relay(data, workers=2) as relay:
        async with person("alice") as alice, person("bob") as bob, person("ci") as ci:
            assert said(await read(alice, "builds")) == BUILDS
            assert said(await read(bob, "lobby")) == LOBBY
            info = await alice.room_info("lobby")
            assert info.topic == "all and sundry"
            roles = {one.name: (one.role, one.banned) for one in info.people}
            assert roles["alice"] == ("owner", False)
            assert roles["ci"] == ("none", True)
            assert said(await read(bob, "den")) == [("alice", "psst"), ("bob", "here")]
            for room in ("lobby", "den"):
                with pytest.raises(Refused):
                    await ci.join(room)
            if number >= 3:
                await conversations(alice, bob)
            if number >= 4:
                chosen = await bob.preferences()
                assert (chosen.writers, chosen.blocked) == ("known", ("ci",))
                assert {one.name for one in await bob.rooms(mine=True)} >= {"lobby", "den"}
            for room in ("builds", "den"):
                assert (await alice.send(room, "today")).seq > 2
            assert (await bob.send("@alice", "today")).seq
            async with asyncio.timeout(DEADLINE_S):
                while not (await bob.search("den", "psst")).entries:
                    await asyncio.sleep(0.05)  # the index is being built
    assert formats(data) == {FORMAT_VERSION}
    checked = run_relay("data", "check", "--data", str(data))
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def conversations(alice: Client, bob: Client) -> None:
    """Direct messages, edits, reactions and unread counts."""
    direct = [("alice", "one"), ("alice", "two"), ("bob", "three")]
    for person in (alice, bob):
        inbox = await read(person, "@me")
        assert said([one for one in inbox if isinstance(one, Message)]) == direct
    entries = await read(bob, "talk")
    assert [(type(one), one.body.decode()) for one in entries] == [
        (Message, "what do you think?"),
        (Message, "oops"),
        (Erased, ""),
        (Message, "indeed"),
        (Reaction, "+1"),
        (Edit, "mended"),
        (Redaction, "a mistake"),
    ]
    question, oops, gone, answer, reaction, edit, redaction = entries
    assert answer.about == reaction.about == question.cursor
    assert (edit.about, redaction.about) == (oops.cursor, gone.cursor)
