"""Invariant "Epochs are segments": which starts keep the epochs, and which begin new ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from relay.store.file import generation
from relay.store.file.checkpoint import copy_pages
from relay.store.file.generation import Durability
from tests.support.logs import append, die, message, open_partition


def copied_over(directory: Path, backup: Path) -> None:
    """``cp backup/* directory``: the files keep their inodes."""
    for name in ("00.sqlite", "00.sqlite-wal"):
        if (backup / name).exists():
            (directory / name).write_bytes((backup / name).read_bytes())
        else:
            (directory / name).unlink(missing_ok=True)


def replaced(directory: Path, backup: Path) -> None:
    """``rm -r directory; cp -a backup directory``: lock file and times as they were, too."""
    shutil.rmtree(directory)
    shutil.copytree(backup, directory)


Restore = Callable[[Path, Path], None]


def test_a_clean_stop_keeps_the_epoch_over_a_reboot(tmp_path: Path) -> None:
    partition = open_partition(tmp_path, boot_id="boot 1")
    epoch = append(partition, message(1))[0].epoch
    partition.close()
    partition = open_partition(tmp_path, boot_id="boot 2")
    assert append(partition, message(2))[0].epoch == epoch
    partition.close()


@pytest.mark.parametrize(
    ("durability", "boot_id", "kept"),
    [
        ("process", "boot 1", True),
        ("process", "boot 2", False),
        ("power", "boot 1", True),
        ("power", "boot 2", True),
    ],
)
def test_an_unclean_stop(tmp_path: Path, durability: Durability, boot_id: str, kept: bool) -> None:
    partition = open_partition(tmp_path, durability=durability)
    epoch = append(partition, message(1))[0].epoch
    die(partition)
    partition = open_partition(tmp_path, boot_id=boot_id, durability="process")
    assert (append(partition, message(2))[0].epoch == epoch) is kept
    partition.close()


def test_commits_made_since_power_was_given_up_count(tmp_path: Path) -> None:
    open_partition(tmp_path, durability="power").close()
    partition = open_partition(tmp_path, durability="process")
    epoch = append(partition, message(1))[0].epoch
    die(partition)
    partition = open_partition(tmp_path, boot_id="boot 2", durability="power")
    assert append(partition, message(2))[0].epoch != epoch
    partition.close()


def test_a_checkpoint_does_not_look_like_a_restored_copy(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    partition.checkpoint_begins()
    copy_pages(partition.path)
    partition.checkpoint_ended()
    die(partition)
    partition = open_partition(tmp_path)
    assert append(partition, message(2))[0].epoch == epoch
    # Nor does one during which the process died.
    partition.checkpoint_begins()
    copy_pages(partition.path)
    die(partition)
    partition = open_partition(tmp_path)
    assert append(partition, message(3))[0].epoch == epoch
    partition.close()


@pytest.mark.parametrize("restore", [copied_over, replaced])
@pytest.mark.parametrize("end_of_backup", ["clean", "while in use"])
@pytest.mark.parametrize("end", ["clean", "killed"])
def test_a_restored_backup_never_reuses_a_seq(
    tmp_path: Path, restore: Restore, end_of_backup: str, end: str
) -> None:
    directory, backup = tmp_path / "data", tmp_path / "backup"
    directory.mkdir()
    partition = open_partition(directory)
    old = append(partition, message(1))[0]
    if end_of_backup == "clean":
        partition.close()
        shutil.copytree(directory, backup)
        partition = open_partition(directory)
    else:
        shutil.copytree(directory, backup)
    lost = append(partition, message(2))[0]
    assert lost.epoch == old.epoch
    if end == "clean":
        partition.close()
    else:
        die(partition)
    restore(directory, backup)
    partition = open_partition(directory)
    new = append(partition, message(2, b"other"))[0]
    assert new.seq == lost.seq
    assert new.epoch != lost.epoch
    partition.close()


def test_a_wal_deleted_after_a_crash_begins_new_epochs(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    partition.close()
    partition = open_partition(tmp_path)
    append(partition, message(2))
    die(partition)
    (tmp_path / "00.sqlite-wal").unlink()
    (tmp_path / "00.sqlite-shm").unlink()
    partition = open_partition(tmp_path)
    again = append(partition, message(2, b"other"))[0]
    assert (again.seq, again.epoch == epoch) == (2, False)
    partition.close()


def test_death_in_the_middle_of_closing_keeps_the_epoch(tmp_path: Path) -> None:
    """At any step: nothing is lost by it, also when the machine stops afterwards."""
    epochs = set()
    for step in range(4):
        partition = open_partition(tmp_path, boot_id=f"boot {step}")
        epochs.add(append(partition, message(step + 1))[0].epoch)
        opened, lock = partition._opened, partition._lock
        assert opened is not None
        if step:  # 0: a complete close
            generation.mark_clean(opened.connection)
            if step > 1:
                lock.note(partition.path, partition._opening, "changing")
            if step > 2:
                opened.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            die(partition)
        else:
            partition.close()
    partition = open_partition(tmp_path, boot_id="boot 4")
    epochs.add(append(partition, message(5))[0].epoch)
    partition.close()
    assert len(epochs) == 1


def test_a_repair_by_another_program_begins_new_epochs(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    epoch = append(partition, *[message(n) for n in (1, 2)])[0].epoch
    partition.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    connection.execute("DELETE FROM entry WHERE id = (SELECT max(id) FROM entry)")
    connection.execute("UPDATE producer SET counter = 1, seq = 1")
    connection.close()
    partition = open_partition(tmp_path)
    again = append(partition, message(2, b"other"))[0]
    assert (again.seq, again.epoch == epoch) == (2, False)
    partition.close()


def test_a_deleted_lock_file_begins_new_epochs(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    partition.close()
    (tmp_path / "00.lock").unlink()
    partition = open_partition(tmp_path)
    assert append(partition, message(2))[0].epoch != epoch
    partition.close()


def test_one_bad_start_makes_one_epoch(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    epochs = {append(partition, message(1))[0].epoch}
    die(partition)
    for number, boot in enumerate(("boot 2", "boot 3", "boot 3"), 2):
        partition = open_partition(tmp_path, boot_id=boot)
        epochs |= {append(partition, message(number))[0].epoch}
        die(partition)
    assert len(epochs) == 3


def test_a_lost_machine_is_seen_even_when_nothing_else_reached_the_disk(tmp_path: Path) -> None:
    """The mark "in use" is on the disk before the first commit: lose all that came after it."""
    partition = open_partition(tmp_path)
    epoch = append(partition, message(1))[0].epoch
    partition.close()
    partition = open_partition(tmp_path)
    disk = (tmp_path / "00.sqlite-wal").read_bytes()
    append(partition, message(2))
    die(partition)
    (tmp_path / "00.sqlite-wal").write_bytes(disk)
    (tmp_path / "00.sqlite-shm").unlink()
    partition = open_partition(tmp_path, boot_id="boot 2")
    again = append(partition, message(2, b"other"))[0]
    assert (again.seq, again.epoch == epoch) == (2, False)
    partition.close()
