"""A partition's new file: complete, or not there, whenever its process dies or the power fails."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from relay.store.errors import StoreFull, StoreUnavailable
from relay.store.file.format import FORMAT_VERSION
from relay.store.file.new_file import create_file
from relay.store.file.schema import create_tables, pragma, rows
from relay.wire.packing import unpack_entry
from tests.support.disks import Disk
from tests.support.killed_at import killed_at
from tests.support.logs import append, message, open_partition, stored


def schema_of(connection: apsw.Connection) -> list[tuple[object, ...]]:
    found = rows(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema")
    connection.close(True)
    return sorted(found)


def test_it_is_what_sqlite_would_create(tmp_path: Path) -> None:
    create_file(path := tmp_path / "00.sqlite")
    assert os.listdir(tmp_path) == ["00.sqlite"]  # noqa: PTH208
    assert path.stat().st_mode & 0o777 == 0o600
    connection = apsw.Connection(str(path))
    assert pragma(connection, "journal_mode") == "wal"
    assert pragma(connection, "user_version") == FORMAT_VERSION
    assert pragma(connection, "page_count") == path.stat().st_size // 4096
    assert rows(connection, "PRAGMA integrity_check") == [("ok",)]
    other = apsw.Connection(str(tmp_path / "other"))
    create_tables(other, unpack_entry)
    assert schema_of(connection) == schema_of(other)


def test_a_link_gets_its_target(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (path := tmp_path / "00.sqlite").symlink_to(elsewhere / "file")
    create_file(path)
    assert path.is_symlink()
    assert os.listdir(elsewhere) == ["file"]  # noqa: PTH208


def test_whenever_its_process_is_killed_the_next_one_begins(tmp_path: Path) -> None:
    step = 0
    while True:
        (directory := tmp_path / str(step)).mkdir()
        step += 1
        killed = killed_at(step, lambda directory=directory: open_partition(directory))  # type: ignore[misc]
        partition = open_partition(directory)
        assert [stored(one).seq for one in append(partition, message(1))] == [1]
        partition.close()
        assert not list(directory.glob("*.new"))
        if not killed:
            break
    assert step > 3  # the lock file, the new file, its name


def test_it_is_on_the_disk_before_it_has_its_name_and_its_name_before_its_wal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted(function: Callable[..., object], what: Callable[..., str]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            result = function(*arguments)
            done.append(what(*arguments))
            return result

        return call

    def of(fd: int) -> str:
        return f"sync {Path(f'/proc/self/fd/{fd}').resolve().name}"

    monkeypatch.setattr(os, "fdatasync", noted(os.fdatasync, of))
    monkeypatch.setattr(os, "fsync", noted(os.fsync, of))
    monkeypatch.setattr(os, "rename", noted(os.rename, lambda old, new: f"rename {Path(new).name}"))
    with Disk().in_use() as disk:
        disk.fails = lambda operation, name: done.append(f"{operation} {name}")
        open_partition(tmp_path).close()
    began = done.index("write 00.sqlite-wal")
    changes = [one for one in done[:began] if not one.startswith("read ")]
    assert changes == ["sync 00.sqlite.new", "rename 00.sqlite", f"sync {tmp_path.name}"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
            with pytest.raises(StoreFull, match=r"no space left for .*00\.sqlite"):
                create_file(tmp_path / "00.sqlite")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    partition = open_partition(tmp_path)
    assert [stored(one).seq for one in append(partition, message(1))] == [1]
    partition.close()


def test_a_name_that_is_taken_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "00.sqlite.new").mkdir()
    with pytest.raises(StoreUnavailable, match=r"00\.sqlite: Is a directory"):
        create_file(tmp_path / "00.sqlite")


def test_an_empty_file_is_replaced(tmp_path: Path) -> None:
    """A version that created it by SQLite may have died before it wrote anything."""
    (tmp_path / "00.sqlite").touch()
    partition = open_partition(tmp_path)
    assert [stored(one).seq for one in append(partition, message(1))] == [1]
    partition.close()
