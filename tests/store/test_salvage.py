"""What is kept of a damaged file, where the damage is inside an entry that can be unpacked."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from relay.chat.entries import Extra, Kind, Submission
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.server.worker.home.room_rules import RoomRules
from relay.store.integrity import damage
from relay.store.salvage import SalvagedLog, salvage
from relay.wire.packing import unpack_entry
from tests.support.logs import NOW_MS, append, message, open_partition

TOPIC = message(2, events.pack(events.TopicSet("tea")))._replace(
    kind=int(Kind.SYSTEM), content_type=events.CONTENT_TYPE
)
MARK = message(2, b"lobby", log="@alice")._replace(
    kind=int(Kind.MARK),
    content_type="",
    extra=Extra(about_epoch=b"epoch..A", about_seq=1, verdict=0),
)


@pytest.mark.parametrize("damaged", [TOPIC, MARK], ids=["topic", "mark"])
def test_an_entry_that_says_nothing_ends_its_log(tmp_path: Path, damaged: Submission) -> None:
    """It is handed out with what follows it; the rest of the file is made anew."""
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
    found = salvage(
        path, new, partition=partition_of(log), unpack=unpack_entry, with_wal=False,
        aside=aside.append,
    )  # fmt: skip
    assert found == [SalvagedLog(log, 1, 2)]
    assert [unpack_entry(one).seq for one in aside] == [3]


def test_a_damaged_state_is_found_and_made_anew(tmp_path: Path) -> None:
    """The state of a room follows from its entries."""
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
    assert damage(connection, unpack=unpack_entry, partition=number, limit_s=None) is None
    connection.execute("UPDATE state SET packed=x'c1'")
    found = damage(connection, unpack=unpack_entry, partition=number, limit_s=None)
    assert found == "the state of log lobby cannot be read"
    connection.close()
    salvage(
        path, new, partition=number, unpack=unpack_entry, with_wal=False, aside=lambda _: None
    )  # fmt: skip
    made = apsw.Connection(str(new))
    assert made.execute(states).fetchall() == before
    made.close()
