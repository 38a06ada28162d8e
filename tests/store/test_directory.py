"""The data directory: created once, of one format, used by one server."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.store.file.directory import DataDirectory
from tests.support.programs import run_program
from tests.support.refused_calls import CAN_BE_REFUSED, refusing

LOCKED = """
import sys
from pathlib import Path
from relay.errors import RelayError
from relay.store.file.directory import lock_directory
from tests.support.logs import open_partition
try:
    {}
except RelayError as error:
    print(error)
"""

HOLD = """
import os, sys
from pathlib import Path
from relay.store.file.directory import DataDirectory
lock = DataDirectory(Path(sys.argv[1])).lock()
if len(sys.argv) > 2 and os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def holder(path: Path, *args: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert int(child.stdout.readline()) == child.pid
    return child


def test_is_made_private_with_all_above_it(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "a" / "b")
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / "format").read_text() == (
        "relay data directory, format 1, partitions 16\n"
    )
    assert (directory.path / "format").stat().st_mode & 0o777 == 0o600
    paths = {directory.partition_path(n) for n in range(PARTITIONS)}
    paths |= {directory.lock_path(n) for n in range(PARTITIONS)}
    assert len(paths) == 2 * PARTITIONS
    assert all(path.parent.is_dir() for path in paths)


@CAN_BE_REFUSED
@pytest.mark.parametrize(
    ("what", "file", "said"),
    [
        ("lock_directory(Path(sys.argv[1]))", "lock", "put the directory on a file system with"),
        ("open_partition(Path(sys.argv[1]))", "00.sqlite", "its file system must have"),
    ],
)
def test_a_file_system_without_locks(tmp_path: Path, what: str, file: str, said: str) -> None:
    """As some of FUSE, whose error for them is that of a missing system call (ENOSYS)."""
    ended = run_program(refusing(errno.ENOSYS, "fcntl") + LOCKED.format(what), tmp_path)
    assert str(tmp_path / file) in ended.stdout
    assert f"{said} locks" in ended.stdout
    assert "filter" not in ended.stdout


def test_is_the_same_the_next_time(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path)
    again = DataDirectory(tmp_path)
    assert first.partition_path(7) == again.partition_path(7)


def test_another_format_is_refused(tmp_path: Path) -> None:
    DataDirectory(tmp_path)
    (tmp_path / "format").write_text("relay data directory, format 2, partitions 64\nmore\n")
    with pytest.raises(StartError, match=r"another format \(relay .* partitions 64\)"):
        DataDirectory(tmp_path)


def test_a_damaged_format_file_cannot_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "format").write_bytes(b"\x1b[2J\xff" + b"x" * 10_000)
    with pytest.raises(StartError) as raised:
        DataDirectory(tmp_path)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


def test_logs_without_a_format_are_refused(tmp_path: Path) -> None:
    DataDirectory(tmp_path)
    (tmp_path / "format").unlink()
    with pytest.raises(StartError, match="no file named format"):
        DataDirectory(tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartError, match=r"/data: it is not a directory: .* with --data"):
        DataDirectory(tmp_path / "data")
    with pytest.raises(StartError, match=r"/data/x: it is below .*: .* with --data"):
        DataDirectory(tmp_path / "data" / "x")
    DataDirectory(tmp_path)
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").touch()
    with pytest.raises(StartError, match=r"/logs: it is not a directory"):
        DataDirectory(tmp_path)


def test_a_second_server_is_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        with pytest.raises(StartError, match=f"in use by another relay .process {child.pid}."):
            DataDirectory(tmp_path).lock()
        child.kill()
        child.wait()
        DataDirectory(tmp_path).lock().close()


def test_the_lock_dies_with_the_supervisor_though_a_worker_lives_on(tmp_path: Path) -> None:
    with holder(tmp_path, "fork") as child:
        with pytest.raises(StartError):
            DataDirectory(tmp_path).lock()
        child.kill()
        os.waitpid(child.pid, 0)
        # The forked process still reads our pipe: it has the descriptor, not the lock.
        with DataDirectory(tmp_path).lock():
            pass


def test_needs_no_sqlite(tmp_path: Path) -> None:
    code = "import sys, relay.store.file.directory; sys.exit('apsw' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
