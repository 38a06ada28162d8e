"""``kill -9`` of a real writer between any two statements of a commit."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from relay.store.log import Repeated, Stored
from relay.store.reading.reader import SqliteReader
from tests.support.cluster import COMMAND_S
from tests.support.loaded import loader
from tests.support.logs import (
    ALICE,
    NOW_MS,
    PAGE_BYTES,
    append_as_home,
    entries,
    message,
    messages,
    open_partition,
)

TAILS = (64, 5, 1)
"""The second commit of a log leaves its producer to the entries, flushes it, or writes it."""


def write(
    directory: Path, statement: int, tail_max: int, *more: str
) -> subprocess.CompletedProcess[str]:
    """Have a writer killed before a statement."""
    arguments = [str(directory), str(statement), str(tail_max), *more]
    return loader("servers").run(
        arguments, "", os.environ, COMMAND_S, module="tests.store.killed_writer"
    )


@pytest.mark.parametrize("tail_max", TAILS)
@pytest.mark.parametrize("statement", range(1, 18))
def test_a_group_is_stored_whole_or_not_at_all(
    tmp_path: Path, statement: int, tail_max: int
) -> None:
    done = write(tmp_path, statement, tail_max)
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged = done.stdout.count("acknowledged\n")
    reader = SqliteReader(tmp_path / "00.sqlite")
    kept = len(reader.read("lobby", 0, 9, PAGE_BYTES).rows)
    kept_new = len(reader.read("new", 0, 9, PAGE_BYTES).rows)
    assert (kept, kept_new) in ((3, 0), (6, 1))
    if acknowledged == 2:
        assert kept == 6

    # The sender resends everything unacknowledged, and goes on.
    partition = open_partition(tmp_path)
    epoch = partition.head("lobby").epoch
    outcomes = partition.append([*messages(4, 7), message(1, log="new")], NOW_MS)
    assert [type(outcome) for outcome in outcomes] == (
        [Stored] * 5 if kept == 3 else [*[Repeated] * 3, Stored, Repeated]
    )
    found = entries(reader.read("lobby", 0, 9, PAGE_BYTES))
    assert [(e.producer, e.counter, e.seq, e.prev) for e in found] == [
        (ALICE, n, n, n - 1) for n in range(1, 8)
    ]
    assert {entry.epoch for entry in found} == {epoch}
    reader.close()
    partition.close()


@pytest.mark.parametrize("statement", [1, 2])
def test_so_is_a_message_that_comes_alone(tmp_path: Path, statement: int) -> None:
    """Its commit is one statement: the second would be after it."""
    done = write(tmp_path, statement, 64, "alone")
    assert done.returncode == -signal.SIGKILL, done.stderr
    reader = SqliteReader(tmp_path / "00.sqlite")
    kept = len(reader.read("lobby", 0, 9, PAGE_BYTES).rows)
    assert (kept, done.stdout.count("acknowledged\n")) == ((3, 1), (4, 2))[statement - 1]
    partition = open_partition(tmp_path)
    outcomes = [append_as_home(partition, [message(n)])[0] for n in (4, 5, 6, 4)]
    assert [type(outcome) for outcome in outcomes] == [
        Stored if kept == 3 else Repeated, Stored, Stored, Repeated,
    ]  # fmt: skip
    found = entries(reader.read("lobby", 0, 9, PAGE_BYTES))
    assert [(e.counter, e.seq, e.prev) for e in found] == [(n, n, n - 1) for n in range(1, 7)]
    reader.close()
    partition.close()


@pytest.mark.parametrize("tail_max", TAILS)
def test_the_kills_hit_the_commit_and_its_neighbourhood(tmp_path: Path, tail_max: int) -> None:
    """The range above covers the commit: the first leaves nothing, the last everything."""
    seen = []
    for statement in (1, 17):
        directory = tmp_path / str(statement)
        directory.mkdir()
        write(directory, statement, tail_max)
        reader = SqliteReader(directory / "00.sqlite")
        seen.append(len(reader.read("lobby", 0, 9, PAGE_BYTES).rows))
        reader.close()
    assert seen == [3, 6]
