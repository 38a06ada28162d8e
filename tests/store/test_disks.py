"""Disks that are full, that fail, and that lose power: below SQLite, at every operation.

Invariants "Disk errors", "Accepted means committed" and "Epochs are segments".
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import apsw
import pytest

from relay.chat.entries import Cursor, Kind, Submission
from relay.store.errors import StoreError, StoreFull, StoreUnavailable
from relay.store.file import generation, opening, scrub
from relay.store.file.checkpoint import REST_PAGES_MAX, Checkpointer, copy_pages, finish
from relay.store.file.generation import Durability
from relay.store.log import Repeated, Stored
from relay.store.reading.reader import SqliteReader
from relay.wire.packing import unpack_entry
from tests.support.disks import Disk, Fails, Operation, broken, full
from tests.support.logs import (
    NOW_MS,
    append,
    append_as_home,
    die,
    entries,
    message,
    open_partition,
    stored,
)

Result = TypeVar("Result")

OPERATIONS_MAX = 400
"""More than any commit here has: a test that reaches it has failed at each of them."""


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk().in_use() as disk:
        yield disk


def nth(number: int, error: Fails, *operations: Operation) -> Fails:
    """Fail at the nth of some operations (from 0), and at all later ones: a disk stays full."""
    left = number

    def fails(operation: Operation, name: str) -> apsw.Error | None:
        nonlocal left
        if operation not in operations:
            return None
        left -= 1
        return error(operation, name) if left < 0 else None

    return fails


def healthy(_: Operation, __: str) -> None:
    """Nothing fails."""


def seqs(reader: SqliteReader) -> list[int]:
    return [entry.seq for entry in entries(reader.read("lobby", 0, 10**6, 10**9))]


class Writer:
    """Appends, and records what was acknowledged."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self.directory = directory
        self.durability: Durability = durability
        self.acknowledged: dict[tuple[bytes, int], bytes] = {}
        """By (epoch, seq): the packed entries."""
        self.last = 0
        """The last acknowledged counter."""
        self.partition = open_partition(directory, durability=durability)

    def write(self, count: int = 1, size: int = 100) -> list[Stored]:
        """Append one group, which may raise; a resend has the same ids."""
        batch = [
            message(n, f"message {n} ".encode().ljust(size, b"."))
            for n in range(self.last + 1, self.last + 1 + count)
        ]
        outcomes = append_as_home(self.partition, batch)
        for outcome in outcomes:
            if isinstance(outcome, Stored):
                self.acknowledged[outcome.epoch, outcome.seq] = outcome.packed
        self.last += count
        return [outcome for outcome in outcomes if isinstance(outcome, Stored)]

    def read(self) -> dict[tuple[bytes, int], bytes]:
        """Return all that a reader gets."""
        reader = SqliteReader(self.directory / "00.sqlite")
        try:
            return {
                (reader.epoch_at("lobby", seq), seq): packed
                for seq, packed in reader.read("lobby", 0, 10**6, 10**9).rows
            }
        finally:
            reader.close()

    def lost(self) -> list[int]:
        """Return the acknowledged entries that are missing or changed."""
        there = self.read()
        return sorted(
            place[1] for place, packed in self.acknowledged.items() if there.get(place) != packed
        )


# --- full, and failing ----------------------------------------------------------------------------
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_full_at_any_write_of_a_commit(
    tmp_path: Path, disk: Disk, durability: Durability, count: int
) -> None:
    """The group is refused as a whole, with an error of its own; reading goes on; it is stored when
    there is space again, in the same epoch, without opening the file again.
    """
    writer = Writer(tmp_path, durability)
    reader = SqliteReader(writer.partition.path)
    [first] = writer.write()
    opened = writer.partition._opened
    for number in range(OPERATIONS_MAX):
        disk.fails = nth(number, full, "write", "truncate")
        try:
            writer.write(count, size=5000)
        except StoreFull:
            pass
        else:
            break
        before = writer.last
        assert writer.partition.head("lobby") == (first.epoch, before)
        assert seqs(reader) == list(range(1, before + 1))
        with pytest.raises(StoreFull):
            writer.write()
        disk.fails = healthy
        [again] = writer.write()
        assert again[:3] == (first.epoch, before + 1, before)
    else:
        raise AssertionError("it never succeeded")
    assert number > 3
    assert writer.partition._opened is opened
    assert writer.lost() == []
    reader.close()
    writer.partition.close()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("operation", ["write", "sync"])
def test_an_error_at_any_operation_of_a_commit(
    tmp_path: Path, disk: Disk, operation: Operation, count: int
) -> None:
    """Whether it was stored is read from the file, which is opened again. What follows has a new
    epoch, for pages that the kernel has dropped look as if they had been written.
    """
    writer = Writer(tmp_path, "power")
    reader = SqliteReader(writer.partition.path)
    [stored_] = writer.write()
    epochs = {stored_.epoch}
    for number in range(OPERATIONS_MAX):
        disk.fails = nth(number, broken, operation)
        try:
            writer.write(count, size=5000)
        except StoreUnavailable:
            pass
        else:
            break
        assert set(writer.acknowledged) <= {(e, s) for e, s in writer.read()}
        assert seqs(reader)  # reading goes on
        with pytest.raises(StoreUnavailable):
            writer.write(count, size=5000)  # opening it again fails, too
        disk.fails = healthy
        writer.write(count, size=5000)  # a resend: it may have been stored after all
        [outcome] = writer.write()
        assert outcome.epoch not in epochs
        epochs.add(outcome.epoch)
    else:
        raise AssertionError("it never succeeded")
    assert len(epochs) == number + 1 > 1
    assert writer.lost() == []
    there = writer.read()
    assert len(set(there.values())) == len(there) == writer.last
    reader.close()
    writer.partition.close()


def test_a_reader_whose_disk_fails_goes_on_when_it_can(tmp_path: Path, disk: Disk) -> None:
    """An error of its own, and no cached state is in the way later."""
    partition = open_partition(tmp_path)
    append(partition, *[message(n, b"x" * 5000) for n in range(1, 200)])
    partition.close()
    partition = open_partition(tmp_path)
    reader = SqliteReader(partition.path)
    disk.fails = nth(3, broken, "read")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="planted by a test"):
            reader.read("lobby", 0, 10**6, 10**9)
    with pytest.raises(StoreError):
        partition.append([message(200), message(7)], NOW_MS)  # it has to read, too
    disk.fails = healthy
    assert seqs(reader) == list(range(1, 200))
    assert stored(partition.append([message(200)], NOW_MS)[0]).seq == 200
    reader.close()
    partition.close()


@pytest.mark.parametrize("error", [full, broken], ids=["full", "broken"])
def test_a_checkpoint_that_fails_loses_nothing(tmp_path: Path, disk: Disk, error: Fails) -> None:
    """At any of its operations; commits go on meanwhile, and the next checkpoint is complete."""
    writer = Writer(tmp_path, "process")
    writer.write(50)
    for number in range(OPERATIONS_MAX):
        disk.fails = nth(number, error, "write", "sync", "truncate")
        try:
            copy_pages(writer.partition.path)
            done = finish(writer.partition.path).complete
        except StoreError:
            done = False
        disk.fails = healthy
        writer.write(5)
        if done:
            break
    assert number > 1
    assert writer.lost() == []
    copy_pages(writer.partition.path)
    assert finish(writer.partition.path).complete
    writer.partition.close()


async def test_commits_are_not_held_for_most_of_a_checkpoint(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied pages are synced before that, under continuous writes; and a part of the WAL that was
    read is not read again.
    """
    writer = Writer(tmp_path, "process")
    path = writer.partition.path
    unsynced: list[int] = []
    looked_at: list[int] = []
    pages_of_wal = scrub.pages_of_wal

    def looking(of: Path, frames: int, first: int = 0) -> set[int]:
        if writer.partition.commits_blocked:
            looked_at.append(frames - first)
        return pages_of_wal(of, frames, first)

    async def watched(work: Callable[[], Result], /) -> Result:
        if writer.partition.commits_blocked:
            unsynced.append(len(disk.files[path].pending))
        disk.fails = healthy if writer.partition.commits_blocked else at_a_write
        result = work()
        disk.fails = healthy
        return result

    def at_a_write(operation: Operation, name: str) -> None:
        """While pages are copied, somebody writes."""
        if operation == "write" and name == path.name:
            disk.fails = healthy
            writer.write()

    monkeypatch.setattr(scrub, "pages_of_wal", looking)
    checkpointer = Checkpointer(writer.partition, watched)
    for completed in range(1, 4):
        while writer.partition.wal_pages < 10 * REST_PAGES_MAX:
            writer.write(20, size=2000)
        await checkpointer.run()
        assert checkpointer.completed == completed
    assert len(looked_at) == 3
    assert max(unsynced) <= REST_PAGES_MAX
    assert max(looked_at) <= REST_PAGES_MAX
    assert writer.lost() == []
    writer.partition.close()


async def test_a_checkpoint_whose_sync_fails_is_no_loss_later(tmp_path: Path, disk: Disk) -> None:
    """Pages that it did not write to the WAL would end the WAL there, for all later syncs."""
    writer = Writer(tmp_path, "process")
    [first] = writer.write()
    writer.write(30)

    async def at_once(work: Callable[[], Result], /) -> Result:
        return work()

    checkpointer = Checkpointer(writer.partition, at_once)
    disk.fails = nth(0, broken, "sync")
    await checkpointer.run()
    assert checkpointer.incomplete == 1
    disk.fails = healthy
    control = message(1, log="@alice")._replace(kind=Kind.SYSTEM)  # is forced to the disk
    [stored_] = append(writer.partition, control)
    [more] = writer.write()
    assert more.epoch != first.epoch
    die(writer.partition)
    disk.cut_power(random.Random(1))
    writer.partition = open_partition(tmp_path, boot_id="the next boot")
    assert writer.partition.head("@alice") == (stored_.epoch, 1)
    writer.partition.close()


async def test_a_removal_after_such_a_checkpoint_opens_the_file_again(
    tmp_path: Path, disk: Disk
) -> None:
    """It is a commit like any other: none may build on what the disk may have lost."""
    writer = Writer(tmp_path, "process")
    [first] = writer.write()
    writer.write(30)

    async def at_once(work: Callable[[], Result], /) -> Result:
        return work()

    disk.fails = nth(0, broken, "sync")
    checkpointer = Checkpointer(writer.partition, at_once)
    await checkpointer.run()
    assert checkpointer.incomplete == 1
    disk.fails = healthy
    opened = writer.partition._opened
    assert writer.partition.remove("lobby", 5, 0).floor == 5
    assert writer.partition._opened is not opened
    [more] = writer.write()
    assert more.epoch != first.epoch
    writer.partition.close()


async def test_the_file_is_not_opened_again_while_a_checkpoint_goes_on(
    tmp_path: Path, disk: Disk
) -> None:
    """Both would write to the file: a page that one considers unused may be the other's."""
    writer = Writer(tmp_path, "process")
    [first] = writer.write()
    writer.write(30)
    phases = 0

    async def at_once(work: Callable[[], Result], /) -> Result:
        nonlocal phases
        phases += 1
        if phases == 5:  # after one for what was unflushed
            disk.fails = broken
            with pytest.raises(StoreUnavailable, match="planted by a test"):
                writer.write()
            disk.fails = healthy
            with pytest.raises(StoreUnavailable, match="a checkpoint goes on"):
                writer.write()
        return work()

    checkpointer = Checkpointer(writer.partition, at_once)
    await checkpointer.run()
    assert (phases, checkpointer.completed) == (5, 1)
    [more] = writer.write()
    assert more.epoch != first.epoch
    assert writer.lost() == []
    writer.partition.close()


# --- no power -------------------------------------------------------------------------------------
def lose_power(
    directory: Path, disk: Disk, durability: Durability, seed: int
) -> tuple[Writer, dict[tuple[bytes, int], bytes]]:
    """Write until the power is cut, at any operation; return the writer, and what is left."""
    chance = random.Random(seed)
    writer = Writer(directory, durability)
    disk.fails = nth(chance.randrange(150), broken, "write", "sync", "truncate")
    try:
        while True:
            writer.write(chance.randint(1, 5), size=chance.choice([50, 3000]))
            if chance.random() < 0.2:
                writer.partition.checkpoint_begins()
                copy_pages(writer.partition.path)
                if chance.random() < 0.5:
                    finish(writer.partition.path)
                writer.partition.checkpoint_ended()
    except StoreError:
        pass
    if writer.partition._opened is not None:
        die(writer.partition)
    else:
        writer.partition._lock.close()
    disk.fails = healthy
    disk.cut_power(chance)
    writer.partition = open_partition(directory, boot_id="the next boot", durability=durability)
    return writer, writer.read()


def judge_power(writer: Writer, there: dict[tuple[bytes, int], bytes]) -> None:
    """Everything acknowledged is stored, readers continue without a gap, and so does the
    numbering.
    """
    assert writer.lost() == []
    last = max((seq for _, seq in there), default=0)
    unacknowledged = last - len(writer.acknowledged)
    assert unacknowledged >= 0
    # An entry stored without an acknowledgement is answered with its seq on a resend.
    for outcome in writer.partition.append(messages_again(writer, unacknowledged), NOW_MS):
        assert not isinstance(outcome, Stored)
    writer.last = last
    [more] = writer.write()
    assert more.seq == last + 1
    reader = SqliteReader(writer.partition.path)
    head = writer.partition.head("lobby")
    for epoch, seq in there:
        assert reader.resume("lobby", Cursor(epoch, seq), head).gap is None
    reader.close()
    writer.partition.close()


def messages_again(writer: Writer, count: int) -> list[Submission]:
    """Return the last stored messages, as their sender would send them again."""
    there = {seq: unpack_entry(packed) for (_, seq), packed in writer.read().items()}
    found = [there[seq] for seq in sorted(there)[len(there) - count :]] if count else []
    return [message(entry.counter, entry.body) for entry in found]


@pytest.mark.parametrize("seed", range(25))
def test_what_was_acknowledged_with_power_survives_its_loss(
    tmp_path: Path, disk: Disk, seed: int
) -> None:
    judge_power(*lose_power(tmp_path, disk, "power", seed))


@pytest.mark.parametrize("seed", range(25))
def test_a_sync_that_failed_once_is_no_loss_later(tmp_path: Path, disk: Disk, seed: int) -> None:
    """What it did not write can still be read, and the next sync succeeds: as on Linux."""
    chance = random.Random(seed)
    writer = Writer(tmp_path, "power")
    left = chance.randrange(8)

    def once(operation: Operation, name: str) -> apsw.Error | None:
        nonlocal left
        left -= operation == "sync"
        return broken(operation, name) if operation == "sync" and left == -1 else None

    disk.fails = once
    while left > -8:
        before = writer.last
        with contextlib.suppress(StoreError):
            writer.write(chance.randint(1, 5), size=chance.choice([50, 3000]))
        if writer.last == before:  # resent, as clients do: what is answered was accepted
            acknowledge_again(writer)
        if chance.random() < 0.3:
            with contextlib.suppress(StoreError):
                copy_pages(writer.partition.path)
                finish(writer.partition.path)
    die(writer.partition)
    disk.fails = healthy
    disk.cut_power(chance)
    writer.partition = open_partition(tmp_path, boot_id="the next boot", durability="power")
    assert writer.lost() == []
    writer.partition.close()


def acknowledge_again(writer: Writer) -> None:
    """Send the next message until it is answered; a repeat is an acknowledgement, too."""
    there = {
        unpack_entry(packed).counter: (place, packed) for place, packed in writer.read().items()
    }
    while True:
        counter = writer.last + 1
        again = message(counter, unpack_entry(there[counter][1]).body if counter in there else b"x")
        try:
            [outcome] = append_as_home(writer.partition, [again])
        except StoreError:
            continue
        if isinstance(outcome, Stored):
            writer.acknowledged[outcome.epoch, outcome.seq] = outcome.packed
        else:
            place, packed = there[counter]
            assert isinstance(outcome, Repeated)
            writer.acknowledged[place] = packed
        writer.last = counter
        return


@pytest.mark.parametrize("seed", range(25))
def test_without_power_no_number_comes_back_with_another_meaning(
    tmp_path: Path, disk: Disk, seed: int
) -> None:
    """Under durability "process" the end may be lost: then what follows has another epoch."""
    writer, there = lose_power(tmp_path, disk, "process", seed)
    for place, packed in there.items():
        assert writer.acknowledged.get(place, packed) == packed
    before = set(writer.acknowledged) | set(there)
    writer.last = max((seq for _, seq in there), default=0)
    [more] = writer.write()
    assert (more.epoch, more.seq) not in before
    assert more.epoch not in {epoch for epoch, _ in before}
    writer.partition.close()


def test_acknowledging_before_the_disk_has_it_is_caught(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with a store that claims power and does not sync."""
    monkeypatch.setitem(opening.SYNCHRONOUS, "power", "NORMAL")
    caught = 0
    for seed in range(10):
        directory = tmp_path / str(seed)
        directory.mkdir()
        try:
            judge_power(*lose_power(directory, disk, "power", seed))
        except AssertionError:
            caught += 1
    assert caught


def test_a_store_that_keeps_its_epoch_is_caught(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with a store that begins no new epoch after the loss of power."""
    begin = generation.begin

    def believing(connection: apsw.Connection, **facts: Any) -> generation.Begun:  # noqa: ANN401
        return begin(connection, **(facts | {"boot_id": "boot 1"}))

    monkeypatch.setattr(generation, "begin", believing)
    caught = 0
    for seed in range(10):
        directory = tmp_path / str(seed)
        directory.mkdir()
        writer, there = lose_power(directory, disk, "process", seed)
        writer.last = max((seq for _, seq in there), default=0)
        [more] = writer.write()
        caught += (more.epoch, more.seq) in writer.acknowledged and writer.acknowledged[
            more.epoch, more.seq
        ] != there.get((more.epoch, more.seq), b"")
        writer.partition.close()
    assert caught
