"""What is kept of a damaged file, where the damage is inside an entry that can be unpacked."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from relay.chat.entries import Extra, Kind, Submission
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.store.salvage import SalvagedLog, salvage
from relay.wire.envelopes import unpack_entry
from tests.support.logs import append, message, open_partition

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
