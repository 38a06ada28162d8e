"""Leftovers of a killed repair do no harm, and the next repair removes them."""

from __future__ import annotations

from pathlib import Path

from relay.chat.partition import partition_of
from relay.server import repair as repairing
from relay.store.directory import DataDirectory
from tests.support.logs import append, messages, open_partition

PAGE = 4096


def test_what_a_killed_repair_has_left(tmp_path: Path) -> None:
    logs = DataDirectory(tmp_path / "data").partition_path(0).parent
    partition = open_partition(logs)
    append(partition, *messages(1, 20))
    partition.close()
    index = partition_of("lobby")
    for kind in ("sqlite", "lock"):
        (logs / f"00.{kind}").rename(logs / f"{index:02}.{kind}")
    file = logs / f"{index:02}.sqlite"
    file.write_bytes(b"\xa5" * PAGE + file.read_bytes()[PAGE:])
    for left in ("repaired", "attempt", "attempt-wal", "attempt-shm"):
        (logs / f"{file.name}.{left}").write_bytes(b"\xa5" * 2 * PAGE)
    with repairing.stopped(tmp_path / "data") as directory:
        (found,) = repairing.check(directory)
        assert found.refused
        made = repairing.repair(directory, found, repr)
        assert [(log.name, log.kept) for log in made.logs] == [("lobby", 20)]
        (again,) = repairing.check(directory)
        assert again.refused is None
    assert not list(logs.glob("*.attempt*"))
    assert not list(logs.glob("*.repaired*"))
