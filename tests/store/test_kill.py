"""``kill -9`` of a real writer between any two statements of a commit."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relay.store.log import Repeated, Stored
from relay.store.reader import SqliteReader
from tests.support.logs import ALICE, NOW_MS, PAGE_BYTES, entries, message, messages, open_partition

# Commits counters 1 to 3, prints that, and dies before the given statement of the next commit.
WRITER = """
import os, signal, sys
from pathlib import Path
import apsw
from tests.support.logs import append, message, messages, open_partition

countdown = None

def trace(cursor, statement, bindings):
    global countdown
    if countdown is not None:
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return True

def put_in(connection):
    connection.exec_trace = trace

apsw.connection_hooks.append(put_in)
partition = open_partition(Path(sys.argv[1]))
partition._opened.unflushed.tail_max = int(sys.argv[3])
append(partition, *messages(1, 3))
print("acknowledged", flush=True)
countdown = int(sys.argv[2])
append(partition, *messages(4, 6), message(1, log="new"))
countdown = None
print("acknowledged", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


TAILS = (64, 5, 1)
"""The second commit of a log leaves its producer to the entries, flushes it, or writes it."""


def write(directory: Path, statement: int, tail_max: int) -> subprocess.CompletedProcess[bytes]:
    """Let a writer be killed before a statement."""
    return subprocess.run(
        [sys.executable, "-c", WRITER, directory, str(statement), str(tail_max)],
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("tail_max", TAILS)
@pytest.mark.parametrize("statement", range(1, 18))
def test_a_group_is_stored_whole_or_not_at_all(
    tmp_path: Path, statement: int, tail_max: int
) -> None:
    done = write(tmp_path, statement, tail_max)
    assert done.returncode == -signal.SIGKILL, done.stderr
    acknowledged = done.stdout.count(b"acknowledged\n")
    reader = SqliteReader(tmp_path / "00.sqlite")
    kept = len(reader.read("lobby", 0, 9, PAGE_BYTES).rows)
    kept_new = len(reader.read("new", 0, 9, PAGE_BYTES).rows)
    assert (kept, kept_new) in ((3, 0), (6, 1))
    if acknowledged == 2:
        assert kept == 6

    # The sender resends all that it has no acknowledgement of, and goes on.
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
