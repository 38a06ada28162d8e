"""The index of a WAL, read before SQLite recreates it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relay.store.file.companions import index_path
from relay.store.file.wal_index import read_wal_index

THREADS, FILES_EACH = 8, 100


def test_several_threads_open_partitions_at_once(tmp_path: Path) -> None:
    """A worker does, when it starts; files of earlier partitions may have been deleted."""

    def read_some(thread: int) -> int:
        for number in range(FILES_EACH):
            path = tmp_path / f"{thread}-{number}.sqlite"
            index_path(path).write_bytes(bytes(32 * 1024))
            assert read_wal_index(path) is None  # it has no valid header
            index_path(path).unlink()
        return thread

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(read_some, range(THREADS))) == list(range(THREADS))
