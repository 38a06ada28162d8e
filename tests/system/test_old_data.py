"""Data directories that earlier versions wrote (tests/data) still serve every message."""

from __future__ import annotations

import asyncio
import stat
import tarfile
from pathlib import Path

import pytest

from relay.client.aio import Client
from relay.client.events import Message
from tests.support.cluster import DEADLINE_S, Relay

DIRECTORIES = sorted((Path(__file__).parent.parent / "data").glob("v*"))
FINGERPRINT = "bbjnvnnx2zycbt3ntbloz7uqedrte3qfmtykmmeguzkylgyaxoia"
SAID: dict[str, list[tuple[str, str]]] = {
    "builds": [("ci", f"build {n}") for n in range(1, 31)],
    "lobby": [
        *(("alice", text) for text in ("hello", "", "  two  spaces", "Ümläut 漢字 🎉")),
        *(("bob", text) for text in ("hi alice", "bye")),
    ],
    "large": [("alice", "x" * 24_000)],
    **{
        room: [("carol", f"first in {room}")]
        for room in ("news", "random", "support-desk", "a_room", "zz")
    },
}
"""What the README beside the directories had sent."""


async def read(client: Client, room: str) -> list[Message]:
    """Read a room from its first message to its head."""
    joined = await client.join(room, since=0)
    found: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        while not found or found[-1].seq < joined.head.seq:
            event = await anext(client)
            if isinstance(event, Message) and event.room == room:
                found.append(event)
    return found


def test_there_is_one_to_try() -> None:
    assert [directory.name for directory in DIRECTORIES] == ["v0.1.0"]


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda directory: directory.name)
async def test_every_message_is_there_and_the_logs_go_on(directory: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with tarfile.open(directory / "data.tar.xz") as archive:
        # Python 3.11.2 has no argument for it, 3.12 warns without one: our own archive is trusted.
        archive.extraction_filter = lambda member, _path: member
        archive.extractall(data)  # noqa: S202
    assert stat.S_IMODE((data / "server.key").stat().st_mode) == 0o600
    with Relay(data, workers=2) as relay:
        assert FINGERPRINT in relay.address  # the server is still the one that clients have pinned
        async with Client(relay.address, name="reader") as client:
            for room, said in SAID.items():
                found = await read(client, room)
                assert [(each.sender, each.body.decode()) for each in found] == said
                assert [each.seq for each in found] == list(range(1, len(said) + 1))
                stored = await client.send(room, "today")
                assert stored.seq == len(said) + 1
