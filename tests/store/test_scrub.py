"""Erased content is nowhere in the files: neither in pages, free ones included, nor in the WAL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw
import pytest

from relay.chat.entries import Extra, Kind, Submission
from relay.store.file import checkpoint, scrub
from relay.store.file.checkpoint import Checkpointer
from relay.store.file.schema import translated
from relay.store.sqlite import SqlitePartition
from tests.support.logs import BOB, append, die, message, open_partition
from tests.support.scanning import leftovers

T = TypeVar("T")
SECRET = rb"secret \d+ of room-\d+;"


async def checkpointed(partition: SqlitePartition) -> None:
    """Wait for a checkpoint as the worker makes it."""
    checkpointer = Checkpointer(partition, asyncio.to_thread)
    await checkpointer.run()
    assert checkpointer.completed


async def filled(partition: SqlitePartition, commits: int) -> list[Submission]:
    """Write to many logs in turn, so that pages are split in the middle of the tree.

    Return what erases a part of each.
    """
    rng = random.Random(7)
    counters: dict[str, int] = {}
    erasing = []
    for number in range(commits):
        batch = []
        for _ in range(20):
            log = f"room-{rng.choice([0, 0, 0, rng.randrange(60)])}"
            counter = counters[log] = counters.get(log, 0) + 1
            secret = f"secret {counter} of {log};".encode()
            body = secret + b"." * rng.randrange(rng.choice([1, 60, 60, 300, 1000, 9000])) + secret
            batch.append(message(counter, body, log=log)._replace(key_id=b"key"))
        for one, at in zip(batch, append(partition, *batch), strict=True):
            extra = Extra(about_epoch=at.epoch, about_seq=at.seq)
            redaction = one._replace(kind=int(Kind.REDACTION), producer=BOB, body=b"", extra=extra)
            erasing.append(redaction)
        if number % 50 == 49:
            await checkpointed(partition)
    return erasing


async def test_nothing_is_left_of_what_was_redacted(tmp_path: Path) -> None:
    """In the main file, its free pages and its unused parts, and the WAL; a part of each log."""
    partition = open_partition(tmp_path)
    erasing = await filled(partition, 300)
    gone = [one for one in erasing if one.counter % 3 == 0 or one.log > "room-3"]
    left = {(one.log, one.counter) for one in erasing} - {(o.log, o.counter) for o in gone}
    kept = {f"secret {counter} of {log};".encode() for log, counter in left}
    counters: dict[str, int] = {}
    for at in range(0, len(gone), 20):
        batch = []
        for one in gone[at : at + 20]:
            counters[one.log] = counters.get(one.log, 0) + 1
            batch.append(one._replace(counter=counters[one.log]))
        append(partition, *batch)
    assert leftovers(tmp_path, SECRET).get("00.sqlite-wal", set()) - kept, "erased at once?"
    await checkpointed(partition)
    found = leftovers(tmp_path, SECRET)
    assert set().union(*found.values()) == kept
    partition.close()
    assert set().union(*leftovers(tmp_path, SECRET).values()) == kept


@pytest.mark.parametrize("then", ["checkpoint", "close", "another kill", "an error alone"])
async def test_what_a_killed_writer_did_not_overwrite_is_overwritten_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Killed between the copy of the WAL and the overwriting: the list of pages was in
    memory only.
    """
    partition = open_partition(tmp_path)
    erasing = await filled(partition, 60)
    counters: dict[str, int] = {}
    for one in erasing:
        counters[one.log] = counters.get(one.log, 0) + 1
        append(partition, one._replace(counter=counters[one.log]))
    checkpointer = Checkpointer(partition, asyncio.to_thread)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "clean", killed)
        with pytest.raises(Killed):
            await checkpointer.run()
    assert leftovers(tmp_path, SECRET), "nothing was left"
    if then == "an error alone":
        await checkpointer.run()
        assert not leftovers(tmp_path, SECRET)
        partition.close()
        return
    die(partition)
    partition = open_partition(tmp_path)
    assert partition.erased, "no checkpoint is due"
    if then == "another kill":
        die(partition)
        partition = open_partition(tmp_path)
    if then != "close":
        await checkpointed(partition)
        assert not leftovers(tmp_path, SECRET)
        assert not partition.checkpoint_begins(), "all pages again"
    partition.close()
    assert not leftovers(tmp_path, SECRET)


class Killed(Exception):
    """Raised instead of a death."""


def killed(*_: object) -> None:
    raise Killed


async def test_pages_keep_copies_if_nobody_overwrites_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would detect it."""
    monkeypatch.setattr(checkpoint, "overwrite", lambda *_: None)
    with pytest.raises(AssertionError):
        await test_nothing_is_left_of_what_was_redacted(tmp_path)


def test_what_is_no_leaf_is_left_alone(tmp_path: Path) -> None:
    """Pages of other types, and those whose header does not match their content."""
    used = b"\x0d\0\0\0\x01\x01\xf8\0\x01\xf8".ljust(504, b"x") + b"contents"
    assert scrub.unused(used) == [(10, 494)]
    clean = used[:10] + bytes(494) + used[504:]
    others = clean, b"\x05" + used[1:], used[:8] + b"\0\x20" + used[10:], bytes(512), b""
    for page in others:
        assert scrub.unused(page) == []
    path = tmp_path / "00.sqlite"
    header = (bytes(16) + (512).to_bytes(2, "big")).ljust(512, b"h")
    path.write_bytes(header + used + b"".join(others[1:]) + used + used[:100])
    scrub.overwrite(path, {1, 2, 3, 4, 5, 7, 99})  # the last ones are truncated, and not there
    whole = header + clean + b"".join(others[1:])
    assert path.read_bytes() == whole + used + used[:100], "the sixth was not requested"
    path.write_bytes(header + 300 * used)
    scrub.overwrite(path, {*range(2, 200), *range(201, 302)})
    assert path.read_bytes() == header + 198 * clean + used + 101 * clean


def test_pages_are_known_by_the_frames_of_the_wal(tmp_path: Path) -> None:
    path = tmp_path / "00.sqlite"
    header = (bytes(8) + (512).to_bytes(4, "big")).ljust(32, b"h")
    frames = [number.to_bytes(4, "big").ljust(24, b"f") + bytes(512) for number in (3, 7, 3, 9)]
    path.with_name("00.sqlite-wal").write_bytes(header + b"".join(frames))
    assert scrub.pages_of_wal(path, 3) == {3, 7}
    assert scrub.pages_of_wal(path, 6) == {3, 7, 9}, "truncated"
    many = [number.to_bytes(4, "big").ljust(24, b"f") + bytes(512) for number in range(1, 201)]
    path.with_name("00.sqlite-wal").write_bytes(header + b"".join(many))
    assert scrub.pages_of_wal(path, 199) == set(range(1, 200))
    assert scrub.pages_of_wal(tmp_path / "none", 0) == set()


async def test_pages_that_have_changed_since_a_checkpoint_failed_stay_whole(tmp_path: Path) -> None:
    """The WAL of the next one does not have all commits: the file was opened again."""
    partition = open_partition(tmp_path)
    rng = random.Random(7)
    counters: dict[str, int] = {}

    def talk(commits: int) -> None:
        for _ in range(commits):
            batch = []
            for _ in range(20):
                log = f"room-{rng.choice([0, 0, 0, rng.randrange(60)])}"
                counter = counters[log] = counters.get(log, 0) + 1
                batch.append(message(counter, b"." * rng.randrange(1000), log=log))
            append(partition, *batch)

    async def failing(work: Callable[[], T], /) -> T:
        if broken and partition.commits_blocked:
            error = apsw.IOError("the disk")
            raise translated(error, partition.path) from error
        done = await asyncio.to_thread(work)
        if broken:
            talk(2)  # between the two phases
        return done

    checkpointer = Checkpointer(partition, failing)
    for number in range(1, 4):
        talk(20)
        broken = True
        await checkpointer.run()
        assert checkpointer.incomplete == number
        talk(20)  # opens it again first, and copies the whole WAL
        broken = False
        await checkpointer.run()
        assert checkpointer.completed == number
        other = apsw.Connection(str(partition.path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        finally:
            other.close()
    partition.close()
