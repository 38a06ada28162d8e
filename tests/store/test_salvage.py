"""What is kept of a damaged file, if the damage is inside an entry that can be unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from relay.chat.entries import Extra, Kind, Submission
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store.contents import connect_still
from relay.store.file.checkpoint import copy_pages
from relay.store.file.companions import wal_bytes, wal_path
from relay.store.file.integrity import DamagedLog, check_file
from relay.store.log import LogUnreadable
from relay.store.salvage.carving import PAGE_BYTES, ROW_BYTES_MAX, carved
from relay.store.salvage.log import SalvagedLog
from relay.wire.packing import unpack_entry
from tests.support.logs import (
    ALICE,
    BOB,
    NOW_MS,
    append,
    die,
    message,
    open_partition,
    read_logs,
    salvaged,
)

FRAME_HEADER_BYTES = 24
TOPIC = message(2, events.pack(events.TopicSet("tea")))._replace(
    kind=int(Kind.SYSTEM), content_type=events.CONTENT_TYPE
)
MARK = message(2, b"lobby", log="@alice")._replace(
    kind=int(Kind.MARK),
    content_type="",
    extra=Extra(about_epoch=b"epoch..A", about_seq=1, verdict=0),
)


@pytest.mark.parametrize("damaged", [TOPIC, MARK], ids=["topic", "mark"])
def test_an_entry_without_a_meaning_is_kept(tmp_path: Path, damaged: Submission) -> None:
    """A running relay sends it too. If it may have changed a room, nobody has rights there."""
    log = damaged.log
    partition = open_partition(tmp_path)
    append(partition, message(1, log=log), damaged, message(3, log=log))
    partition.close()
    path, new = tmp_path / "00.sqlite", tmp_path / "new.sqlite"
    connection = apsw.Connection(str(path))
    [(packed,)] = connection.execute("SELECT packed FROM entry WHERE id & 0xff = 2").fetchall()
    assert isinstance(packed, bytes)
    assert packed.count(damaged.body) == 1
    broken = packed.replace(damaged.body, b"\xc1" * len(damaged.body))
    connection.execute("UPDATE entry SET packed=? WHERE id & 0xff = 2", (broken,))
    connection.close()
    aside: list[bytes] = []
    found = salvaged(path, new, log, aside=aside.append)
    assert found == [SalvagedLog(log, 3, 0, 0, doubtful=log == "lobby")]
    assert not aside


def test_a_damaged_state_is_found_and_made_anew(tmp_path: Path) -> None:
    """The state of a room is folded from its entries."""
    partition = open_partition(tmp_path)
    partition._rules = RoomRules(anyone_creates=True)
    partition.append([message(1), message(2)], NOW_MS)
    partition.close()
    path, new = tmp_path / "00.sqlite", tmp_path / "new.sqlite"
    connection = apsw.Connection(str(path))
    states = "SELECT * FROM state"
    before = connection.execute(states).fetchall()
    assert len(before) == 1
    number = partition_of("lobby")
    assert (
        check_file(connection, unpack=unpack_entry, partition=number, limit_s=None).damage is None
    )
    connection.execute("UPDATE state SET packed=x'c2'")
    checked = check_file(connection, unpack=unpack_entry, partition=number, limit_s=None)
    assert checked == (None, [DamagedLog("lobby", "its state cannot be read", repairable=True)])
    connection.close()
    salvaged(path, new)
    made = apsw.Connection(str(new))
    assert made.execute(states).fetchall() == before
    made.close()


def test_a_log_whose_last_senders_are_unknown_can_be_sent_to_again(tmp_path: Path) -> None:
    """Their records were only in the entries; a repair goes by the links of these."""
    partition = open_partition(tmp_path)
    partition._rules = RoomRules(anyone_creates=True)
    partition.append([message(1)], NOW_MS)  # creates the room
    for number in (2, 3):
        append(partition, message(number))
    die(partition)
    path, new = tmp_path / "00.sqlite", tmp_path / "new" / "00.sqlite"
    new.parent.mkdir()
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE entry SET packed=x'00' WHERE id & 0xff = 4")
    number = partition_of("lobby")
    [found] = check_file(connection, unpack=unpack_entry, partition=number, limit_s=None).logs
    connection.close()
    assert found == (
        "lobby", "entry 4 cannot be read, so nothing can be sent to it", True
    )  # fmt: skip
    partition = open_partition(tmp_path, at_start=True)
    assert isinstance(partition.append([message(4)], NOW_MS)[0], LogUnreadable)
    partition.close()
    made = salvaged(path, new, with_wal=True)
    assert made == [SalvagedLog("lobby", 3, 1, 0)]
    again = open_partition(new.parent)
    assert [one.seq for one in append(again, message(4))] == [5], "its counter 3 is known"
    again.close()


@pytest.mark.parametrize(
    "damaged",
    [
        "chain=chain + 1000", "chain=-chain", "chain=0, jump=99", "jump=-1", "packed='text'",
        "packed=2.5", "time_ms='noon'", "packed=CAST(packed AS TEXT)",
    ],
)  # fmt: skip
def test_what_is_made_passes_the_check(tmp_path: Path, damaged: str) -> None:
    """Whatever a row says of earlier ones, and whatever is in the place of the expected value."""
    partition = open_partition(tmp_path)
    append(partition, *(message(n, producer=who) for n in range(1, 9) for who in (ALICE, BOB)))
    partition.close()
    path, new = tmp_path / "00.sqlite", tmp_path / "new.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute(f"UPDATE entry SET {damaged} WHERE id & 0xff = 7")  # noqa: S608
    connection.close()
    number = partition_of("lobby")
    [found] = salvaged(path, new, with_wal=True)
    assert (found.kept + found.lost, found.aside) == (16, 0)
    if "CAST" in damaged:
        assert found.kept == 16, "the bytes are the right ones"
    made = connect_still(new)
    checked = check_file(made, unpack=unpack_entry, partition=number, limit_s=None)
    made.close()
    assert checked.damage is None
    [log] = read_logs(new)
    assert log.entries == 16
    assert found.kept >= 14


def pages_of_type(data: bytes, kind: int) -> list[int]:
    """Return the positions of the pages of a type, without the first one."""
    return [at for at in range(PAGE_BYTES, len(data), PAGE_BYTES) if data[at] == kind]


def overwritten(data: bytes, *places: int) -> bytes:
    for at in places:
        data = data[:at] + b"\xa5" * PAGE_BYTES + data[at + PAGE_BYTES :]
    return data


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "first page": lambda data: overwritten(data, 0),
    "pages above rows": lambda data: overwritten(data, *pages_of_type(data, 0x05)),
    "indexes": lambda data: overwritten(
        data, *pages_of_type(data, 0x02), *pages_of_type(data, 0x0A)
    ),
    "all of these": lambda data: overwritten(
        data, 0, *(at for kind in (0x02, 0x05, 0x0A) for at in pages_of_type(data, kind))
    ),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("copied", [True, False], ids=["copied", "in the WAL"])
def test_only_what_was_in_a_damaged_page_is_lost(tmp_path: Path, how: str, copied: bool) -> None:
    """Pages with rows are recognised by themselves, wherever they are, and however long the
    rows.
    """
    partition = open_partition(tmp_path)
    bodies = [b"%d " % number + b"x" * (number % 11 * 900) for number in range(1, 121)]
    append(partition, *(message(n, body) for n, body in enumerate(bodies, 1)))
    path, new = tmp_path / "00.sqlite", tmp_path / "new.sqlite"
    copy_pages(path)
    if copied:
        partition.close()
    else:
        append(partition, message(len(bodies) + 1, b"y" * 9000))
        bodies.append(b"y" * 9000)
        die(partition)
    before = path.read_bytes()
    damaged = DAMAGE[how](before)
    assert damaged != before
    path.write_bytes(damaged)
    lost: list[bytes] = []
    found = salvaged(path, new, with_wal=True, aside=lost.append)
    assert found == [SalvagedLog("lobby", len(bodies), 0, 0)]
    assert not lost
    assert sorted(one.name for one in tmp_path.glob("new*")) == ["new.sqlite"]
    made = apsw.Connection(str(new))
    rows: list[Any] = made.execute("SELECT packed FROM entry ORDER BY id").fetchall()
    assert [unpack_entry(packed).body for (packed,) in rows] == bodies
    made.close()


def test_a_commit_that_was_not_finished_is_none(tmp_path: Path) -> None:
    """Its pages are in the WAL; SQLite recognises a commit by a mark in its last frame."""
    partition = open_partition(tmp_path)
    append(partition, message(1, b"whole"))
    path = tmp_path / "00.sqlite"
    before = wal_bytes(path)
    append(partition, message(2, b"half"))
    die(partition)
    found = [unpack_entry(packed).body for *_, packed in carved(path, with_wal=True)]
    assert found == [b"whole", b"half"]
    wal = bytearray(wal_path(path).read_bytes())
    for frame in range(before, len(wal), FRAME_HEADER_BYTES + PAGE_BYTES):
        wal[frame + 4 : frame + 8] = bytes(4)
    wal_path(path).write_bytes(wal)
    found = [unpack_entry(packed).body for *_, packed in carved(path, with_wal=True)]
    assert found == [b"whole"]


@pytest.mark.parametrize("seed", range(30))
def test_pages_of_nonsense_are_passed_over(tmp_path: Path, seed: int) -> None:
    """Nothing is invented, and pointers in a circle end."""
    chance = Random(seed)
    pages = [bytearray(chance.randbytes(PAGE_BYTES)) for _ in range(20)]
    for page in pages:
        page[0], page[3:5] = 0x0D, b"\x01\x00"
    path = tmp_path / "00.sqlite"
    path.write_bytes(b"".join(pages))
    assert all(len(packed) <= ROW_BYTES_MAX for *_, packed in carved(path, with_wal=False))
