"""Deciding is apart from storing: no file, no clock; what was decided can be applied anywhere."""

from __future__ import annotations

from pathlib import Path

import apsw

from relay.chat.entries import Submission
from relay.chat.repeats import Stack
from relay.store import apply
from relay.store.decide import Decision
from relay.store.log import Expected, IdConflict, Outcome, Repeated, Stored
from relay.store.schema import rows
from relay.store.sqlite import SqlitePartition
from relay.store.state import NO_LOG, Changes, LogEnd, Original, ProducerEnd, View
from relay.wire.envelopes import pack_entry, unpack_entry
from tests.support.logs import ALICE, BOB, NOW_MS, append, message, messages, open_partition

EPOCH = b"epoch 1."
NEW_EPOCH = b"epoch 2."


def view(batch: list[Submission], log: LogEnd, known: dict[bytes, tuple[int, Stack]]) -> View:
    """A view of one log, as it would have been read for a batch."""
    made = View(generation=2)
    made.logs["lobby"] = log
    made.next_log_id = 5
    for submission in batch:
        key = submission.log, submission.producer
        if key not in made.producers:
            counter, stack = known.get(submission.producer, (0, ()))
            made.producers[key] = ProducerEnd(log, counter, stack, counter)
        made.ends.append(made.producers[key])
    return made


def decide(made: View, batch: list[Submission]) -> tuple[list[Outcome], Changes]:
    def random_bytes(count: int) -> bytes:
        assert count == len(NEW_EPOCH)
        return NEW_EPOCH

    decision = Decision(made, now_ms=NOW_MS, pack=pack_entry, random_bytes=random_bytes)
    return decision.decide(batch), decision.changes


def test_a_first_message_makes_the_log_and_its_epoch() -> None:
    batch = [message(1), message(1), message(1, b"other"), message(3)]
    outcomes, changes = decide(view(batch, NO_LOG.copy(), {}), batch)
    stored = outcomes[0]
    assert isinstance(stored, Stored)
    assert outcomes[1:] == [Repeated(NEW_EPOCH, 1), IdConflict(1), Expected(2)]
    assert changes.new_logs == [(5, "lobby")]
    assert changes.new_epochs == [(5, 1, NEW_EPOCH, 2)]
    assert changes.entries == [(5 << 40 | 1, NOW_MS, 0, 0, stored.packed)]
    assert unpack_entry(stored.packed)[:5] == ("lobby", NEW_EPOCH, 1, 0, NOW_MS)


def test_the_epoch_of_another_generation_ends() -> None:
    log = LogEnd(3, EPOCH, 1, 7, NOW_MS + 5, generation=1)
    batch = [message(4), message(3), message(5)]
    made = view(batch, log, {ALICE: (3, (7,))})
    made.originals["lobby", ALICE, 3] = Original(7, EPOCH, message(3).content)
    outcomes, changes = decide(made, batch)
    assert [outcome[:3] for outcome in outcomes if isinstance(outcome, Stored)] == [
        (NEW_EPOCH, 8, 7),
        (NEW_EPOCH, 9, 8),
    ]
    assert outcomes[1] == Repeated(EPOCH, 7)
    assert changes.new_logs == []
    assert changes.new_epochs == [(3, 8, NEW_EPOCH, 2)]
    assert {row[1] for row in changes.entries} == {NOW_MS + 5}  # time does not go back


def test_a_view_of_the_first_submissions_decides_about_these() -> None:
    batch = messages(1, 5)
    made = view(batch, NO_LOG.copy(), {})
    del made.ends[3:]
    outcomes, changes = decide(made, batch)
    assert len(outcomes) == len(changes.entries) == 3


def test_what_was_decided_in_one_place_can_be_applied_in_another(
    tmp_path: Path,
) -> None:
    """As a replicated log will: the same changes make the same tables, whenever and wherever."""
    carried: list[tuple[Changes, int]] = []

    def writing(connection: apsw.Connection | apsw.Cursor, changes: Changes, day: int) -> None:
        apply.write(connection, changes, day)
        carried.append((changes, day))

    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    partition = open_partition(there, write=writing)
    append(partition, *messages(1, 40), message(1, log="other"))
    partition.append([*messages(30, 45), message(9), message(1, producer=BOB)], NOW_MS + 1)

    replica = open_partition(here)
    opened = replica._opened
    assert opened is not None
    for changes, day in carried:
        opened.connection.execute("BEGIN IMMEDIATE")
        apply.write(opened.connection, changes, day)
        opened.connection.execute("COMMIT")
        opened.committed.apply(changes)

    def tables(of: SqlitePartition) -> list[object]:
        assert of._opened is not None
        return [
            rows(of._opened.connection, f"SELECT * FROM {table}")  # noqa: S608
            for table in ("log", "epoch", "entry", "producer")
        ]

    assert tables(replica) == tables(partition)
    assert all(tables(replica))
    for each in (replica, partition):
        [stored] = append(each, message(46))
        assert (stored.seq, stored.prev) == (47, 46)
        assert replica.head("other") == partition.head("other")
    partition.close()
    replica.close()
