"""A partition that cannot be opened because this process may open no more files."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.errors import StoreUnavailable
from relay.store.reading.reader import SqliteReader
from tests.support.logs import append, entries, message, open_partition


@contextlib.contextmanager
def no_descriptor() -> Iterator[None]:
    """Within the context, none is free."""
    gc.collect()  # what other tests have left would be closed at any time
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as taken:
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        most = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def test_the_reason_is_the_limit_and_not_the_file(tmp_path: Path) -> None:
    """SQLite reports it as a file that cannot be opened, as it does wrong permissions."""
    with closing(open_partition(tmp_path)) as partition:
        append(partition, message(1))
    with closing(SqliteReader(partition.path)) as reader:
        with no_descriptor(), pytest.raises(StoreUnavailable, match=r"ulimit -Hn") as raised:
            reader.read("lobby", 0, 1, 1000)
        assert "writable" not in str(raised.value)
        assert [entry.seq for entry in entries(reader.read("lobby", 0, 1, 1000))] == [1]
