"""A disk alters bytes of a real data directory, anywhere in it.

Whoever looks at the file - a relay that runs, a start in doubt, a repair - finds the same entries,
each at its own place. Nothing that can be read is lost, and nobody gets rights by a loss.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Literal

import apsw
import pytest

from relay import BlockingClient
from relay.chat.accounts.links import LinkError
from relay.chat.entries import Cursor, Submission
from relay.chat.entries import Kind as EntryKind
from relay.chat.names import INBOX_PREFIX, is_room
from relay.chat.partition import PARTITIONS
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Kind
from relay.errors import EnvelopeError
from relay.server.offline import repair as repairing
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.home.rooms.rules import RoomRules
from relay.server.worker.stored import readable, stored_entry
from relay.store.errors import LogDamaged, StoreError
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Host
from relay.store.log import Stored
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from relay.store.state import SEQ_BITS, SEQ_MASK
from relay.store.stub import LOST
from relay.wire.packing import pack_entry, unpack_entry
from tests.support.cluster import Relay

PAGE = 4096
MESSAGES = 60
ROOMS: dict[str, Literal["private", "public"]] = {
    "secret": "private", "tea": "public", "hall": "public"
}  # fmt: skip
Place = tuple[str, int]
"""(log, seq)."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a relay that was used for everything, and stopped."""
    data = tmp_path_factory.mktemp("whole") / "data"
    with (
        Relay(data) as relay,
        BlockingClient(relay.address, name="alice") as alice,
        BlockingClient(relay.address, name="bob") as bob,
        BlockingClient(relay.address, name="mallory"),
    ):
        for name, kind in ROOMS.items():
            alice.create_room(name, kind)
            alice.change_room(name, "topic", text=f"about {name}")
        alice.change_room("secret", "invite", "bob")
        bob.join("secret", since=0)
        for number in range(MESSAGES):
            for name in ROOMS:
                alice.post(name, f"{number} of alice {'x' * (number % 7 * 150)}")
                bob.post(name, f"{number} of bob")
            alice.post("@bob", f"{number} for bob")
        alice.flush()
        bob.flush()
        alice.change_room("secret", "ban", "mallory")
    return data


def stored(path: Path) -> dict[Place, bytes]:
    """Return what a relay that runs sends of a whole file."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found: dict[Place, bytes] = {}
    try:
        for log_id, name, floor in connection.execute("SELECT id, name, floor FROM log"):
            assert isinstance(log_id, int)
            assert isinstance(name, str)
            assert isinstance(floor, int)
            rows = [
                (row & SEQ_MASK, packed)
                for row, packed in connection.execute(
                    "SELECT id, CAST(packed AS BLOB) FROM entry WHERE id>? AND id<? ORDER BY id",
                    (log_id << SEQ_BITS | floor, log_id + 1 << SEQ_BITS),
                )
            ]
            good = readable(name, rows, floor)
            found |= {(name, seq): packed for seq, packed in rows if seq in good}
    finally:
        connection.close(True)
    return found


def one_bit(chance: Random, data: bytearray, at: int) -> int:
    data[at] ^= 1 << chance.randrange(8)
    return 1


def some_bytes(chance: Random, data: bytearray, at: int) -> int:
    length = min(chance.randint(2, 64), len(data) - at)
    data[at : at + length] = chance.randbytes(length)
    return length


def a_page(chance: Random, data: bytearray, at: int) -> int:
    start = at // PAGE * PAGE
    data[start : start + PAGE] = bytes(PAGE)
    return 1


@pytest.fixture(params=[one_bit, some_bytes, a_page])
def damage(request: pytest.FixtureRequest) -> Callable[[Random, bytearray, int], int]:
    """How a disk alters bytes."""
    how: Callable[[Random, bytearray, int], int] = request.param
    return how


def used(path: Path) -> list[int]:
    """Return the places of bytes that are something."""
    return [at for at, byte in enumerate(path.read_bytes()) if byte]


def partition_with(whole: Path, log: str) -> int:
    for index in range(PARTITIONS):
        path = whole / "logs" / f"{index:02}.sqlite"
        if any(name == log for name, _ in stored(path)):
            return index
    raise AssertionError(log)


@contextlib.contextmanager
def opened(directory: DataDirectory, index: int) -> Iterator[SqlitePartition]:
    """Open a partition as a start in doubt does: all of it is checked."""
    partition = SqlitePartition(
        directory.partition_path(index),
        directory.lock_path(index),
        host=Host("", secrets.token_bytes),
        durability="process",
        pack=pack_entry,
        unpack_entry=unpack_entry,
        index=index,
        check_limit_s=None,
        rules=RoomRules(anyone_creates=True),
    )
    try:
        yield partition
    finally:
        partition.close()


@pytest.mark.parametrize("log", [*ROOMS, "@alice", "@bob"])
def test_bytes_that_a_disk_alters(
    whole: Path, tmp_path: Path, log: str, damage: Callable[[Random, bytearray, int], int]
) -> None:
    index = partition_with(whole, log)
    source = whole / "logs" / f"{index:02}.sqlite"
    before, places = stored(source), used(source)
    for seed in range(4):
        chance = Random(f"{log} {damage.__name__} {seed}")
        data = tmp_path / str(seed)
        # Without its lock file it is in doubt, as any file that was changed.
        shutil.copytree(whole, data, ignore=shutil.ignore_patterns("*.lock", "*.sqlite*"))
        path = data / "logs" / source.name
        content = bytearray(source.read_bytes())
        at = chance.choice(places)
        length = damage(chance, content, at)
        path.write_bytes(content)
        pages = {at // PAGE, (at + length - 1) // PAGE}
        check_one(data, index, before, source.read_bytes(), pages)
        shutil.rmtree(data)


@pytest.mark.parametrize("state", [False, True], ids=["entries", "and the state"])
def test_the_entries_that_make_a_room_private(whole: Path, tmp_path: Path, state: bool) -> None:
    """Its state is stored as well. Without both nobody may read it."""
    index = partition_with(whole, "secret")
    source = whole / "logs" / f"{index:02}.sqlite"
    before, content = stored(source), source.read_bytes()
    connection = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    [(room,)] = connection.execute(
        "SELECT packed FROM state JOIN log ON log.id=log_id WHERE name='secret'"
    ).fetchall()
    connection.close(True)
    assert isinstance(room, bytes)
    pages = {content.index(before["secret", 1]) // PAGE}
    pages |= {content.index(room) // PAGE} if state else set()
    data = tmp_path / "data"
    shutil.copytree(whole, data, ignore=shutil.ignore_patterns("*.lock", "*.sqlite*"))
    damaged = bytearray(content)
    for page in pages:
        damaged[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    (data / "logs" / source.name).write_bytes(damaged)
    check_one(data, index, before, content, pages)
    reader = SqliteReader(data / "logs" / source.name)
    assert reader.state("secret") == (LOST if state else room)
    reader.close()


def check_one(
    data: Path, index: int, before: dict[Place, bytes], original: bytes, pages: set[int]
) -> None:
    directory = DataDirectory.existing(data)
    path = directory.partition_path(index)
    with repairing.stopped(data) as locked:
        (found,) = [one for one in repairing.check(locked) if one.partition == index]
        runs = None
        if found.refused is None:
            runs = stored(path)
            with opened(directory, index):
                pass  # a start accepts what the check accepts
            assert stored(path) == runs
        else:
            with contextlib.suppress(StoreError), opened(directory, index):
                raise AssertionError(found.refused)
        (found,) = [one for one in repairing.check(locked) if one.partition == index]
        if found.to_repair is not None:
            repairing.repair(locked, found, lambda packed: repr(unpack_entry(packed)))
            (again,) = [one for one in repairing.check(locked) if one.partition == index]
            assert again.refused is None
            assert again.to_repair is None, "a repair leaves nothing that another could mend"
    after = stored(path)
    if runs is not None:
        assert after.items() >= runs.items(), "what could be read before a repair can be after it"
    # An entry may have been on several pages; one of which no byte was altered is there.
    for place, packed in before.items():
        on = original.find(packed) // PAGE, (original.find(packed) + len(packed) - 1) // PAGE
        if original.find(packed) >= 0 and not pages & set(on):
            assert after.get(place) == packed, place
    assert after.keys() <= before.keys(), "nothing that never was"
    rights(directory, index, before)
    numbers(directory, index, before)


def rights(directory: DataDirectory, index: int, before: dict[Place, bytes]) -> None:
    """Nobody may read a private room, or use an account, because something was lost."""
    reader = SqliteReader(directory.partition_path(index))
    logs = AccountLogs(lambda _: reader, stored_entry, b"")
    for log in {log for log, _ in before}:
        if is_room(log):
            with contextlib.suppress(EnvelopeError):
                room = rooms.unpack(reader.state(log))
                assert (room.kind is Kind.PRIVATE) == (ROOMS[log] == "private")
                assert room.everybody_writes == (log != "secret")
        elif log.startswith(INBOX_PREFIX):
            controls = [p for (one, _), p in sorted(before.items()) if one == log and is_control(p)]
            with contextlib.suppress(LogDamaged, LinkError):
                account = logs.account(log[1:])
                assert account.version
                assert len(reader.controls(log)) == len(controls)
    reader.close()


def is_control(packed: bytes) -> bool:
    return unpack_entry(packed).kind == EntryKind.SYSTEM


def numbers(directory: DataDirectory, index: int, before: dict[Place, bytes]) -> None:
    """Readers go on where they were, and what is sent next gets the next number."""
    with opened(directory, index) as partition:
        reader = SqliteReader(directory.partition_path(index))
        for log in sorted({log for log, _ in before}):
            head = reader.head(log)
            here = {seq: p for (one, seq), p in before.items() if one == log}
            for seq in sorted(here)[:: max(1, len(here) // 10)]:
                cursor = Cursor(unpack_entry(here[seq]).epoch, seq)
                point = reader.resume(log, cursor, head)
                if seq <= head.seq:
                    assert point == (seq, None)
            if log == "tea":
                message = Submission(log, "alice", b"", b"new.....", 1, 0, "text/plain", b"x")
                (outcome,) = partition.append([message], 1_900_000_000_000)
                if isinstance(outcome, Stored):
                    assert outcome.seq == head.seq + 1
                    assert outcome.epoch not in {unpack_entry(p).epoch for p in here.values()}
        reader.close()
