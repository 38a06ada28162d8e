"""Which of the rooms that have a name one after another a message is for."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.chat.entries import NO_EPOCH, Submission
from relay.chat.rooms import events
from relay.chat.rooms.events import Kind
from relay.chat.rooms.refusal import Reason, not_this_room
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store.log import Denied, LogUnreadable, Outcome, Repeated, Stored, UnknownOutcome
from relay.store.reading.reader import SqliteReader
from relay.store.sqlite import SqlitePartition
from tests.store.conftest import Hooks
from tests.store.test_members import ANN, change
from tests.store.test_sqlite import FailingOnce
from tests.support.logs import (
    BOB,
    NOW_MS,
    append,
    append_as_home,
    die,
    message,
    open_partition,
    salvaged,
    unnoticed,
)

CREATED = events.Created(Kind.PUBLIC, True, ANN)
DELETED = events.Deleted("")
OTHER = b"another."


@pytest.fixture
def rooms(tmp_path: Path) -> SqlitePartition:
    """A partition with the rules of rooms."""
    return opened(tmp_path)


def opened(path: Path, boot_id: str = "boot 1") -> SqlitePartition:
    """Open it."""
    made = open_partition(path, boot_id=boot_id)
    made._rules = RoomRules(anyone_creates=True)
    return made


def meant(counter: int, identity: bytes, producer: bytes = BOB) -> Submission:
    """A message of bob for one room."""
    return message(counter, producer=producer)._replace(sender="bob", identity=identity)


def as_home(partition: SqlitePartition, one: Submission) -> Outcome:
    """Append one as a home does."""
    [outcome] = append_as_home(partition, [one])
    return outcome


def is_gone(outcome: Outcome) -> bool:
    """Return True if a message was refused since it is for another room."""
    return isinstance(outcome, Denied) and outcome.refused.reason is Reason.NO_SUCH_ROOM


def test_a_message_reaches_the_room_it_is_for_and_no_other(rooms: SqlitePartition) -> None:
    """Whether it comes alone or with others, and the counter of a refused one is still free."""
    [first] = append(rooms, change(0, CREATED))
    assert isinstance(as_home(rooms, meant(1, first.epoch)), Stored)
    assert isinstance(as_home(rooms, meant(2, first.epoch)), Stored)
    assert is_gone(as_home(rooms, meant(3, OTHER)))
    outcomes = rooms.append([meant(3, first.epoch), meant(4, OTHER), meant(4, b"")], NOW_MS)
    assert [isinstance(one, Stored) for one in outcomes] == [True, False, True]
    assert is_gone(outcomes[1])

    append(rooms, change(1, DELETED))
    assert is_gone(as_home(rooms, meant(5, first.epoch)))
    [second] = append(rooms, change(6, CREATED, "eve"))
    assert second.epoch != first.epoch
    for identity in (first.epoch, OTHER, b"short", NO_EPOCH):
        assert is_gone(as_home(rooms, meant(5, identity)))
        assert is_gone(rooms.append([meant(5, identity)], NOW_MS)[0])
    assert isinstance(as_home(rooms, meant(5, second.epoch)), Stored)


def test_a_message_for_a_room_begins_no_room(rooms: SqlitePartition) -> None:
    """The first message to a name begins one: not if it is for another."""
    assert is_gone(as_home(rooms, meant(1, OTHER)))
    assert rooms.head("lobby").seq == 0
    assert isinstance(as_home(rooms, meant(2, OTHER)), UnknownOutcome)
    began = as_home(rooms, meant(1, b""))
    epoch = rooms.head("lobby").epoch
    assert not isinstance(began, Denied)
    assert isinstance(as_home(rooms, meant(2, epoch)), Stored)


def test_a_repeat_stays_one_when_its_room_is_gone(rooms: SqlitePartition) -> None:
    """Its sender must learn that it is stored, although the room has ended."""
    [first] = append(rooms, change(0, CREATED))
    append(rooms, meant(1, first.epoch), meant(2, first.epoch))
    append(rooms, change(1, DELETED))
    append(rooms, change(4, CREATED, "eve"))
    assert rooms.append([meant(1, first.epoch), meant(2, first.epoch)], NOW_MS) == [
        Repeated(first.epoch, 2),
        Repeated(first.epoch, 3),
    ]


def test_the_order_of_a_commit_decides(rooms: SqlitePartition) -> None:
    """What comes before the end of the room is stored; what comes after the next began is not."""
    [first] = append(rooms, change(0, CREATED))
    ended, began = change(1, DELETED), change(3, CREATED, "eve")
    outcomes = rooms.append([meant(1, first.epoch), ended, began, meant(2, first.epoch)], NOW_MS)
    assert [type(one) for one in outcomes] == [Stored, Stored, Stored, Denied]
    assert is_gone(outcomes[-1])
    second = rooms.head("lobby").epoch
    assert isinstance(as_home(rooms, meant(2, second)), Stored)


def test_a_room_stays_the_same_when_stored_state_was_lost(
    tmp_path: Path, rooms: SqlitePartition
) -> None:
    """The log has another epoch then: neither what is for the room before it may be refused, nor
    what is for an earlier room be stored.
    """
    [first] = append(rooms, change(0, CREATED))
    append(rooms, meant(1, first.epoch), change(1, DELETED))
    [second] = append(rooms, change(3, CREATED, "eve"))
    append(rooms, meant(2, second.epoch))
    die(rooms)
    again = opened(tmp_path, "boot 2")  # the machine was restarted: the last entries may be lost
    append(again, meant(3, second.epoch), meant(4, second.epoch))
    third = again.head("lobby").epoch
    assert third != second.epoch
    for counter in (5, 6):  # what it read the first time, and what it remembers
        assert isinstance(as_home(again, meant(counter, second.epoch)), Stored)
        assert is_gone(as_home(again, meant(counter + 1, first.epoch)))
    again.close()
    once_more = opened(tmp_path, "boot 2")
    batch = [meant(7, first.epoch), meant(7, second.epoch), meant(8, second.epoch)]
    outcomes = once_more.append(batch, NOW_MS)
    assert is_gone(outcomes[0])
    assert [type(one) for one in outcomes[1:]] == [Stored, Stored]
    once_more.close()


def test_rights_are_judged_as_well(tmp_path: Path, rooms: SqlitePartition) -> None:
    """Of a room whose messages are judged one by one."""
    [first] = append(rooms, change(0, events.Created(Kind.PRIVATE, True, ANN)))
    refused = as_home(rooms, meant(1, first.epoch))
    assert isinstance(refused, Denied)
    assert not is_gone(refused) or refused.refused.text != not_this_room().text
    by_ann = message(1)._replace(sender="ann", root=ANN)
    assert is_gone(as_home(rooms, by_ann._replace(identity=OTHER)))
    assert isinstance(as_home(rooms, by_ann._replace(identity=first.epoch)), Stored)
    rooms.close()
    again = opened(tmp_path)  # which room it is was not read yet
    another = message(2)._replace(sender="ann", root=ANN, identity=first.epoch)
    assert isinstance(as_home(again, another), Stored)
    again.close()


def test_a_room_without_a_beginning(tmp_path: Path) -> None:
    """Of the first versions: its log has no entry that created it."""
    plain = open_partition(tmp_path)
    append(plain, message(1))
    plain._rules = RoomRules(anyone_creates=True)
    assert isinstance(as_home(plain, meant(1, NO_EPOCH)), Stored)
    assert is_gone(as_home(plain, meant(2, OTHER)))
    assert isinstance(as_home(plain, meant(2, NO_EPOCH)), Stored)


def test_a_damaged_room_takes_nothing_and_says_so(tmp_path: Path, rooms: SqlitePartition) -> None:
    """Which room it is cannot be read; what can be judged without it is judged."""
    [first] = append(rooms, change(0, CREATED))
    append(rooms, meant(1, first.epoch))
    rooms.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    connection.execute("UPDATE state SET packed=x'c1'")
    connection.close()
    unnoticed(rooms)
    again = opened(tmp_path)
    assert isinstance(as_home(again, meant(2, OTHER)), LogUnreadable)
    again.close()


def test_a_damaged_page_of_epochs_affects_its_room_alone(
    tmp_path: Path, rooms: SqlitePartition, connection_hooks: Hooks
) -> None:
    """Anybody can cause it to be read, by a message that names another epoch than the last."""
    [first] = append(rooms, change(0, CREATED))
    die(rooms)
    fault = FailingOnce(connection_hooks, "SELECT epoch FROM epoch", apsw.CorruptError)
    again = opened(tmp_path, "boot 2")
    append(again, meant(1, b""))
    assert again.head("lobby").epoch != first.epoch
    fault.armed = True
    outcomes = again.append([meant(2, first.epoch), meant(2, b"")], NOW_MS)
    assert not fault.armed
    assert [type(one) for one in outcomes] == [LogUnreadable, Stored]
    assert isinstance(as_home(again, meant(3, first.epoch)), Stored)
    again.close()


@pytest.mark.parametrize(
    "lost", ["DELETE FROM epoch", "DELETE FROM epoch WHERE first_seq=1"], ids=["all", "first"]
)
def test_a_repaired_room_is_the_same(tmp_path: Path, rooms: SqlitePartition, lost: str) -> None:
    """Also if the entry that created it is all that is left of its first epoch."""
    [first] = append(rooms, change(0, CREATED))
    append(rooms, meant(1, first.epoch))
    die(rooms)
    again = opened(tmp_path, "boot 2")
    append(again, meant(2, first.epoch), meant(3, first.epoch))
    assert again.head("lobby").epoch != first.epoch
    again.remove("lobby", 3, 0)
    again.close()
    connection = apsw.Connection(str(again.path))
    connection.execute(lost)
    connection.close()
    new = tmp_path / "new" / "00.sqlite"
    new.parent.mkdir()
    salvaged(again.path, new)
    made = opened(new.parent)
    assert isinstance(as_home(made, meant(4, first.epoch)), Stored)
    assert is_gone(as_home(made, meant(5, OTHER)))
    made.close()
    reader = SqliteReader(new)
    assert reader.epoch_at("lobby", 1) == first.epoch
    reader.close()


def test_what_readers_are_told_is_what_writers_are_asked(
    tmp_path: Path, rooms: SqlitePartition
) -> None:
    """JOINED has the epoch of the entry with which the room began, which a reader reads."""
    append(rooms, change(0, CREATED))
    append(rooms, change(1, DELETED))
    append(rooms, change(2, CREATED, "eve"))
    reader = SqliteReader(tmp_path / "00.sqlite")
    assert isinstance(as_home(rooms, meant(1, reader.epoch_at("lobby", 3))), Stored)
    assert is_gone(as_home(rooms, meant(2, reader.epoch_at("lobby", 2))))
    reader.close()


@given(
    steps=st.lists(
        st.sampled_from(["mine", "earlier", "any", "end", "begin", "lose"]), min_size=1, max_size=30
    ),
    cuts=st.sets(st.integers(1, 29)),
)
def test_however_it_is_divided_into_commits(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], cuts: set[int]
) -> None:
    """The outcome of a message depends on the order of the log alone."""
    path = tmp_path_factory.mktemp("rooms")
    partition = opened(path)
    began: list[bytes] = []
    boots, seq, version, counter, alive = 1, 0, 0, 0, False
    batch: list[Submission] = []
    expected: list[str] = []

    def commit() -> None:
        outcomes = append_as_home(partition, batch) if batch else []
        assert ["gone" if is_gone(one) else type(one).__name__ for one in outcomes] == expected
        batch.clear()
        expected.clear()

    for index, step in enumerate(steps):
        if step == "begin" and not alive:
            commit()  # its epoch is known after the commit
            append(partition, change(version, CREATED))
            began.append(partition.head("lobby").epoch)
            version = seq = seq + 1
            alive = True
        elif step == "end" and alive:
            batch.append(change(version, DELETED))
            expected.append("Stored")
            version = seq = seq + 1
            alive = False
        elif step == "lose" and began:
            commit()
            die(partition)
            boots += 1
            partition = opened(path, f"boot {boots}")
        elif step in ("mine", "any") and began:
            counter += alive
            batch.append(meant(counter + (not alive), began[-1] if step == "mine" else b""))
            expected.append("Stored" if alive else "gone")
            seq += alive
        elif step == "earlier" and len(began) > 1:
            batch.append(meant(counter + 1, began[index % (len(began) - 1)]))
            expected.append("gone")
        if index in cuts:
            commit()
    commit()
    partition.close()
