"""What was erased is nowhere in the files: neither in pages, free ones included, nor in the WAL."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from relay.chat.entries import Extra, Kind, Submission
from relay.store import checkpoint, slack
from relay.store.checkpoint import Checkpointer
from relay.store.sqlite import SqlitePartition
from tests.support.logs import BOB, append, message, open_partition
from tests.support.scanning import leftovers

SECRET = rb"secret \d+ of room-\d+;"


async def checkpointed(partition: SqlitePartition) -> None:
    """Wait for a checkpoint as the worker makes it."""
    checkpointer = Checkpointer(partition, asyncio.to_thread)
    await checkpointer.run()
    assert checkpointer.completed


async def filled(partition: SqlitePartition, commits: int) -> list[Submission]:
    """Write to many logs by turns, so that pages are split in the middle of the tree.

    Returns:
        What erases each of it.
    """
    rng = random.Random(7)
    counters: dict[str, int] = {}
    erasing = []
    for number in range(commits):
        batch = []
        for _ in range(20):
            log = f"room-{rng.choice([0, 0, 0, rng.randrange(60)])}"
            counter = counters[log] = counters.get(log, 0) + 1
            said = f"secret {counter} of {log};".encode()
            body = said + b"." * rng.randrange(rng.choice([1, 60, 60, 300, 1000, 9000])) + said
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


async def test_pages_keep_copies_if_nobody_overwrites_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above would see it."""
    monkeypatch.setattr(checkpoint, "overwrite", lambda *_: None)
    with pytest.raises(AssertionError):
        await test_nothing_is_left_of_what_was_redacted(tmp_path)


def test_what_is_no_leaf_is_left_alone() -> None:
    """Pages of other kinds, and those whose header does not fit what is behind it."""
    header = bytes(8) + (512).to_bytes(4, "big") + bytes(20)
    used = b"\x0d\0\0\0\x01\x01\xf8\0\x01\xf8".ljust(504, b"x") + b"contents"
    frame = (3).to_bytes(4, "big") + bytes(20)
    assert slack.slack_of(header + frame + used) == {3: [(2 * 512 + 10, 494)]}
    clean = used[:10] + bytes(494) + used[504:]
    for page in (clean, b"\x05" + used[1:], used[:8] + b"\0\x20" + used[10:], bytes(512)):
        assert slack.slack_of(header + frame + page) == {3: []}
    assert slack.slack_of(header + frame + used + frame + clean) == {3: []}  # the last one counts
    assert slack.slack_of(b"") == {}
