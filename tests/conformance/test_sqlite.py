"""The SQLite store passes the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.errors import NotTheWriter
from relay.store.log import Partition
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from tests.conformance.log_contract import LogContract
from tests.support.logs import die, open_partition


class SqliteBackend:
    """One partition in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boots = 1
        self._open: list[SqlitePartition] = []
        self._readers: list[SqliteReader] = []

    def open(self) -> SqlitePartition:
        partition = open_partition(self._directory, boot_id=f"boot {self._boots}")
        self._open.append(partition)
        return partition

    def reader(self) -> SqliteReader:
        reader = SqliteReader(self._directory / "00.sqlite")
        self._readers.append(reader)
        return reader

    def kill(self, partition: Partition) -> None:
        assert isinstance(partition, SqlitePartition)
        self._open.remove(partition)
        die(partition)

    def lose_machine(self, partition: Partition) -> None:
        self.kill(partition)
        self._boots += 1

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        for partition in self._open:
            if partition._lock._fd >= 0:
                partition.close()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[SqliteBackend]:
    made = SqliteBackend(tmp_path)
    yield made
    made.close()


class TestSqlite(LogContract):
    """All tests of the contract."""

    def test_the_second_writer_is_told_where(self, backend: SqliteBackend) -> None:
        backend.open()
        with pytest.raises(NotTheWriter, match=r"00\.lock is locked by another process"):
            backend.open()
