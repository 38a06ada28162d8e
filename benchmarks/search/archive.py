"""A room with a long history: written into a stopped relay's data, and indexed, without
its server.
"""

from __future__ import annotations

import random
import secrets
import time
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from relay.chat.entries import Kind, Submission
from relay.chat.partition import partition_of
from relay.server.system.boot_id import boot_id
from relay.store.file.directory import DataDirectory
from relay.store.file.generation import Host
from relay.store.search.follower import Follower
from relay.store.sqlite import SqlitePartition
from relay.store.touched import Touched
from relay.wire.packing import pack_entry, unpack_entry

WORDS: Final = 20_000
"""Of the vocabulary; the n-th is said with a frequency of 1/n, as in languages (Zipf)."""
BATCH: Final = 500
_SUMS: Final = list(accumulate(1 / n for n in range(1, WORDS + 1)))


class Archive(NamedTuple):
    """The result."""

    messages: int
    index_s: float
    """How long the index of them took, by itself."""
    index_bytes: int
    partition_bytes: int


def text(chance: random.Random) -> str:
    """Return a text of 4 to 20 words."""
    count = chance.randint(4, 20)
    return " ".join(f"w{bisect(_SUMS, chance.random() * _SUMS[-1])}" for _ in range(count))


def fill(data: Path, log: str, count: int) -> Archive:
    """Write so many messages into a log, and its index."""
    directory = DataDirectory(data)
    index = partition_of(log)
    path, search = directory.partition_path(index), directory.search_path(index)
    with directory.lock():
        partition = SqlitePartition(
            path,
            directory.lock_path(index),
            host=Host(boot_id(), secrets.token_bytes),
            durability="process",
            pack=pack_entry,
            unpack_entry=unpack_entry,
        )
        for batch in _batches(log, count):
            partition.append(batch, int(time.time() * 1000))
        partition.close()
        follower = Follower(path, search, Touched(), unpack_entry)
        began = time.monotonic()
        while follower.behind:
            follower.run(1.0)
        took = time.monotonic() - began
        follower.close()
    return Archive(count, took, search.stat().st_size, path.stat().st_size)


def _batches(log: str, count: int) -> Iterator[list[Submission]]:
    chance = random.Random(1)
    for first in range(1, count + 1, BATCH):
        yield [
            Submission(
                log, "archivist", b"", b"archivist.......", counter, int(Kind.MESSAGE),
                "text/plain", text(chance).encode(),
            )
            for counter in range(first, min(first + BATCH, count + 1))
        ]  # fmt: skip
