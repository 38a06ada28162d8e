"""Partitions, submissions and entries for tests of the store."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from relay.chat.entries import Kind, Submission
from relay.chat.partition import partition_of
from relay.store.contents import LogContents, connect_still, logs_of
from relay.store.file.generation import Durability, Host
from relay.store.file.lock import PartitionLock, State
from relay.store.log import Outcome, Page, Partition, Stored
from relay.store.opened import Write
from relay.store.read_budget import ReadBudget
from relay.store.salvage.log import SalvagedLog
from relay.store.salvage.partition import salvage
from relay.store.sqlite import CHECK_LIMIT_S, SqlitePartition
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import pack_entry, unpack_entry

NOW_MS = 1_790_000_000_000
PAGE_BYTES = 60_000
ALICE = b"alice..."
BOB = b"bob....."


def open_partition(
    directory: Path,
    *,
    boot_id: str = "boot 1",
    durability: Durability = "process",
    write: Write | None = None,
    at_start: bool = False,
) -> SqlitePartition:
    """Open the partition of a directory, as a worker or the start of a server does."""
    return SqlitePartition(
        directory / "00.sqlite",
        directory / "00.lock",
        host=Host(boot_id, secrets.token_bytes),
        durability=durability,
        pack=pack_entry,
        unpack_entry=unpack_entry,
        write=write,
        check_limit_s=None if at_start else CHECK_LIMIT_S,
    )


def unnoticed(partition: SqlitePartition, state: State = "closed") -> None:
    """Make a test's changes to a partition file look like those of its writer.

    Otherwise the file is checked as a whole when it is opened, and refused.

    Args:
        partition: that was closed, or has died.
        state: "open" for one that has died.
    """
    with PartitionLock(partition.path.with_suffix(".lock")) as lock:
        note = lock.read_note()
        assert note is not None
        lock.note(partition.path, note.opening, state)


def die(partition: SqlitePartition) -> None:
    """Do what the kernel does at the death of a partition's process: close its descriptors."""
    opened = partition._opened
    assert opened is not None
    opened.connection.close(True)
    partition._lock.close()


def message(
    counter: int, body: bytes = b"", *, producer: bytes = ALICE, log: str = "lobby"
) -> Submission:
    """Make a submission; its body tells the counter unless one is given."""
    text = body or f"message {counter}".encode()
    return Submission(log, "alice", b"", producer, counter, Kind.MESSAGE, "text/plain", text)


def messages(
    first: int, last: int, *, producer: bytes = ALICE, log: str = "lobby"
) -> list[Submission]:
    """Make the submissions of the counters from first to last."""
    return [message(n, producer=producer, log=log) for n in range(first, last + 1)]


def stored(outcome: Outcome) -> Stored:
    """Assert that something was stored now."""
    assert type(outcome) is Stored, outcome
    return outcome


def append(partition: Partition, *batch: Submission, now_ms: int = NOW_MS) -> list[Stored]:
    """Append a batch of which all must be stored."""
    return [stored(outcome) for outcome in partition.append(list(batch), now_ms)]


def append_as_home(
    partition: Partition,
    batch: list[Submission],
    now_ms: int = NOW_MS,
    budget: ReadBudget | None = None,
) -> list[Outcome]:
    """Append a batch as a home does: a message that comes alone goes the shorter way if it can."""
    if len(batch) == 1 and (lone := partition.append_lone(batch[0], now_ms)) is not None:
        return [lone]
    return partition.append(batch, now_ms, budget)


def entries(page: Page) -> list[EntryMessage]:
    """Unpack a page, and check that its numbers are those of its entries."""
    found = [unpack_entry(packed) for _, packed in page.rows]
    assert [entry.seq for entry in found] == [seq for seq, _ in page.rows]
    return found


def read_logs(path: Path, upto: Callable[[str], int] | None = None) -> list[LogContents]:
    """Return the logs in a file that nobody changes, each up to the seq that ``upto`` returns."""
    with closing(connect_still(path)) as connection:
        return list(logs_of(connection, upto))


def salvaged(
    path: Path,
    new: Path,
    log: str = "lobby",
    *,
    with_wal: bool = False,
    aside: Callable[[bytes], object] = lambda _: None,
) -> list[SalvagedLog]:
    """Salvage a file of the partition of a log; see ``salvage``."""
    return salvage(
        path,
        new,
        partition=partition_of(log),
        unpack=unpack_entry,
        pack=pack_entry,
        with_wal=with_wal,
        aside=aside,
    )
