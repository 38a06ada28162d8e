"""How many changes of rooms one commit decides: few of large rooms, since the loop waits for it."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from relay.chat.entries import Kind as EntryKind
from relay.chat.entries import Submission
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Kind, Role
from relay.server.worker.home.committing.commits import READS_MAX
from relay.server.worker.home.rooms.entries import entry_of
from relay.server.worker.home.rooms.rules import RoomRules
from relay.server.worker.home.submissions import SLOW_PER_GROUP
from relay.store.log import Outcome, Stored
from relay.store.read_budget import ReadBudget
from relay.store.sqlite import SqlitePartition
from tests.support.logs import NOW_MS, append, open_partition, unnoticed

ANN = b"\xaa" * 32
PEOPLE = 1480
LARGE_MAX = 2
"""Of large rooms in one commit."""
NAMES = [f"room{number}" for number in range(SLOW_PER_GROUP)]


def change(version: int, event: events.Event, log: str) -> Submission:
    return entry_of(log, version, event, "ann", b"")


def rooms_of(directory: Path, people: int) -> SqlitePartition:
    """Open a partition with private rooms, each with so many people, none of them in use."""
    partition = open_partition(directory)
    partition._rules = RoomRules(anyone_creates=True)
    for name in NAMES:
        append(partition, change(0, events.Created(Kind.PRIVATE, True, ANN), name))
    room = rooms.unpack(partition.state(NAMES[0]))
    for number in range(people):
        member = events.RoleSet(f"user-{number:05}", number.to_bytes(32, "big"), Role.MEMBER)
        room = rooms.applied(room, member, "ann", 1)
    partition.close()
    connection = apsw.Connection(str(directory / "00.sqlite"))
    connection.execute("UPDATE state SET packed=?", (rooms.pack(room._replace(version=1)),))
    connection.close()
    unnoticed(partition)
    partition = open_partition(directory)
    partition._rules = RoomRules(anyone_creates=True)
    return partition


def commit(partition: SqlitePartition, batch: list[Submission]) -> list[Outcome]:
    """Commit as a home does; what exceeds the budget is not decided."""
    begun = partition.begin(batch, NOW_MS, ReadBudget(READS_MAX))
    return begun() if callable(begun) else begun


def counts(partition: SqlitePartition, batch: list[Submission]) -> list[int]:
    """Commit a batch, and return how many of it were stored by each commit."""
    found = []
    while batch:
        outcomes = commit(partition, batch)
        assert {type(outcome) for outcome in outcomes} == {Stored}
        found.append(len(outcomes))
        batch = batch[len(outcomes) :]
    return found


@pytest.mark.parametrize("used", [False, True])
def test_changes_of_large_rooms_are_few_in_a_commit(tmp_path: Path, *, used: bool) -> None:
    """Whether their states were decoded before or not."""
    partition = rooms_of(tmp_path, PEOPLE)
    version = 1
    if used:
        counts(partition, [change(version, events.TopicSet("before"), name) for name in NAMES])
        version = 2
    found = counts(partition, [change(version, events.TopicSet("topic"), name) for name in NAMES])
    assert max(found) <= LARGE_MAX
    partition.close()


def test_changes_of_small_rooms_are_one_commit(tmp_path: Path) -> None:
    """What a change costs depends on the size of the room."""
    partition = rooms_of(tmp_path, 10)
    found = counts(partition, [change(1, events.TopicSet("topic"), name) for name in NAMES])
    assert found == [len(NAMES)]
    partition.close()


def test_states_of_large_rooms_are_decoded_few_at_a_time(tmp_path: Path) -> None:
    """A message needs the state of a room that is not in use; the following ones do not."""
    partition = rooms_of(tmp_path, PEOPLE)

    def written(counter: int) -> list[Submission]:
        return [
            Submission(
                name,
                "ann",
                b"",
                b"producer",
                counter,
                EntryKind.MESSAGE,
                "text/plain",
                b"text",
                ANN,
            )
            for name in NAMES
        ]

    assert max(counts(partition, written(1))) <= LARGE_MAX
    assert counts(partition, written(2)) == [len(NAMES)]
    partition.close()
