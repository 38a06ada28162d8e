"""A partition's lock is released by the death of its process, however it dies."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay.store.errors import NotTheWriter, StoreUnavailable
from relay.store.file.generation import Host
from relay.store.file.lock import CLOCK_NS_MAX, PartitionLock
from relay.store.file.opening import Check, open_first
from relay.wire.packing import unpack_entry
from tests.support.logs import NOW_MS, append, message, open_partition

HOLD = """
import sys
from pathlib import Path
from relay.store.file.lock import PartitionLock
lock = PartitionLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "00.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(NotTheWriter):
            PartitionLock(path)
        child.send_signal(signal.SIGKILL)
        child.wait()
        PartitionLock(path).close()


def test_a_lock_on_a_file_that_is_deleted_just_then_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process would lock another file of that name."""
    path = tmp_path / "00.lock"
    flock = fcntl.flock

    def deleting(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", deleting)
    with PartitionLock(path), pytest.raises(NotTheWriter):
        PartitionLock(path)


def test_a_file_in_the_place_of_one_that_was_being_changed_is_in_doubt(tmp_path: Path) -> None:
    """Its own change time is useless then: that of the lock file replaces it."""
    path, file = tmp_path / "00.lock", tmp_path / "00.sqlite"
    file.write_bytes(b"a file")
    with PartitionLock(path) as lock:
        lock.note(file, 1, "changing")
        file.write_bytes(b"changed")
        assert lock.doubt(file) is None
        inode, changed_ns, opening, written_ns, state = path.read_bytes().split()
        before = int(written_ns) - 2 * CLOCK_NS_MAX
        path.write_bytes(b"%b %b %b %d %b" % (inode, changed_ns, opening, before, state))
        assert lock.doubt(file) == "its lock file is a copy"
        lock.note(file, 1, "changing")
        copy = tmp_path / "copy"
        shutil.copy2(file, copy)
        copy.rename(file)
        assert lock.doubt(file) == "another file than before, such as a copy"


def test_what_is_readmitted_may_hold_what_its_writer_did_not_overwrite(tmp_path: Path) -> None:
    with PartitionLock(tmp_path / "00.lock") as lock:
        assert not lock.uncleaned
        lock.refuse("it is damaged")
        lock.readmit()
    with PartitionLock(tmp_path / "00.lock") as lock:
        assert lock.uncleaned


def test_a_stopped_holder_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "00.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(NotTheWriter):
            PartitionLock(path)
        child.kill()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "00.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match=r"00\.lock"):
        PartitionLock(tmp_path / "00.lock")
    assert not (tmp_path / "elsewhere").exists()


def test_is_private(tmp_path: Path) -> None:
    with PartitionLock(tmp_path / "00.lock"):
        assert (tmp_path / "00.lock").stat().st_mode & 0o777 == 0o600


def test_a_late_note_does_not_reach_another_file(tmp_path: Path) -> None:
    file = tmp_path / "00.sqlite"
    file.touch()
    lock = PartitionLock(tmp_path / "00.lock")
    lock.close()
    fd = os.open(tmp_path / "next", os.O_RDWR | os.O_CREAT)
    with pytest.raises(StoreUnavailable):
        lock.note(file, 3, "open")
    os.close(fd)
    assert (tmp_path / "next").read_bytes() == b""


@pytest.mark.parametrize(
    "garbage", [b"", b"\n", b"1", b"x y z", b"\xff" * 64, b"1 2 3 4", b"1 2 3 4 new"]
)
def test_a_note_that_cannot_be_read_is_a_doubt(tmp_path: Path, garbage: bytes) -> None:
    file = tmp_path / "00.sqlite"
    file.touch()
    with PartitionLock(tmp_path / "00.lock") as lock:
        lock.note(file, 3, "open")
        assert lock.doubt(file) is None
        note = lock.read_note()
        assert note is not None
        assert (note.opening, note.state) == (3, "open")
    (tmp_path / "00.lock").write_bytes(garbage)
    with PartitionLock(tmp_path / "00.lock") as lock:
        assert lock.doubt(file) is not None
        assert lock.read_note() is None


def test_a_lock_file_that_cannot_be_read_is_an_error_of_the_store(tmp_path: Path) -> None:
    """One partition is affected: the worker goes on with the others."""
    lock = PartitionLock(tmp_path / "00.lock")
    os.dup2(directory := os.open(tmp_path, os.O_RDONLY), lock._fd)  # reads of it fail
    os.close(directory)
    host = Host("boot", os.urandom)
    path = tmp_path / "00.sqlite"
    for look in (
        lock.read_note,
        lock.refusal,
        lambda: lock.doubt(path),
        lambda: open_first(path, lock, host, "process", Check(unpack_entry, 1.0)),
        lambda: open_first(path, lock, host, "process", Check(unpack_entry, None)),
    ):
        with pytest.raises(StoreUnavailable):
            look()
    lock.close()


@pytest.mark.parametrize("suspected", [False, True])
def test_a_partition_that_was_closed_is_not_opened_again(tmp_path: Path, suspected: bool) -> None:
    """By no remaining user of it: its file may have another writer, or be damaged."""
    partition = open_partition(tmp_path)
    append(partition, message(1))
    partition.refuse("the test says so")
    if suspected:  # the doubt is known then, without a read of the lock file
        partition.checkpoint_failed("no")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for use in (
        lambda: partition.append([message(2)], NOW_MS),
        lambda: partition.remove("lobby", 1, 0),
        partition.pending,
        partition.checkpoint_begins,
        lambda: partition.due(NOW_MS),
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            use()
    partition.refuse("again")
    partition.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
