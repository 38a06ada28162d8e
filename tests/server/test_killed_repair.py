"""A killed repair does no harm: the next one removes what it has left, or completes it."""

from __future__ import annotations

from pathlib import Path

from relay.chat.partition import partition_of
from relay.server.offline import repair as repairing
from relay.store.file.directory import DataDirectory
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


def test_a_repair_that_was_killed_before_its_last_step(tmp_path: Path) -> None:
    """The old files are moved away, the new one is not in place yet: nothing but that is left."""
    data = tmp_path / "data"
    logs = DataDirectory(data).partition_path(0).parent
    partition = open_partition(logs)
    append(partition, *messages(1, 20))
    partition.close()
    index = partition_of("lobby")
    for kind in ("sqlite", "lock"):
        (logs / f"00.{kind}").rename(logs / f"{index:02}.{kind}")
    file = logs / f"{index:02}.sqlite"
    good = file.read_bytes()
    moved = data / repairing.ASIDE / f"{index:02}-20260101-000000"
    moved.mkdir(parents=True)
    file.rename(moved / file.name)
    (logs / f"{file.name}.repaired").write_bytes(good)
    with repairing.stopped(data) as directory:
        (found,) = repairing.check(directory)
        assert found.refused
        made = repairing.repair(directory, found, repr)
        assert made.kept_in == moved
        (again,) = repairing.check(directory)
        assert again.refused is None
        assert again.examined is not None
        assert again.examined.contents.entries == 20
    assert [path.name for path in moved.parent.iterdir()] == [moved.name]
