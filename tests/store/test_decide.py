"""Decisions need no file and no clock; their result can be applied anywhere."""

from __future__ import annotations

from pathlib import Path

import apsw
from hypothesis import given
from hypothesis import strategies as st

from relay.chat.entries import Submission, committed, unpacked
from relay.chat.repeats import Stack
from relay.chat.rooms import events
from relay.chat.rooms import state as states
from relay.chat.rooms.events import Kind
from relay.chat.rooms.refusal import Reason
from relay.chat.rooms.state import Room
from relay.server.worker.home.rooms.entries import entry_of
from relay.server.worker.home.rooms.rules import RoomRules
from relay.store import apply
from relay.store.decide import Decision, Pack
from relay.store.file.schema import rows
from relay.store.log import (
    Began,
    Denied,
    Expected,
    IdConflict,
    LogRefused,
    LogUnreadable,
    Outcome,
    Repeated,
    Stored,
)
from relay.store.rules import Rules
from relay.store.sqlite import SqlitePartition
from relay.store.state import NO_LOG, SEQ_MASK, Changes, LogEnd, Original, ProducerEnd, View
from relay.wire.packing import pack_entry, unpack_entry
from tests.support.logs import ALICE, BOB, NOW_MS, append, message, messages, open_partition

EPOCH = b"epoch 1."
NEW_EPOCH = b"epoch 2."
RULES = RoomRules(anyone_creates=True)


def view(batch: list[Submission], log: LogEnd, known: dict[bytes, tuple[int, Stack]]) -> View:
    """A view of one log, as it would be read for a batch."""
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


def decide(
    made: View, batch: list[Submission], rules: Rules | None = None, pack: Pack = pack_entry
) -> tuple[list[Outcome], Changes]:
    def random_bytes(count: int) -> bytes:
        assert count == len(NEW_EPOCH)
        return NEW_EPOCH

    decision = Decision(made, now_ms=NOW_MS, pack=pack, random_bytes=random_bytes, rules=rules)
    return decision.decide(batch), decision.changes


UNPACKABLE = b"cannot be packed"


def pack_most(entry: tuple[object, ...]) -> bytes:
    if entry[-1] == UNPACKABLE:
        raise ValueError("as the codec would")
    return pack_entry(entry)


@given(
    st.lists(
        st.tuples(
            st.sampled_from((ALICE, BOB)),
            st.sampled_from((1, 1, 1, 1, 1, 2)),
            st.sampled_from((b"", b"", b"", b"", UNPACKABLE)),
        ),
        max_size=12,
    ),
    st.sampled_from((0, 7, SEQ_MASK - 3)),
    st.sampled_from((1, 2)),
    st.sampled_from((NOW_MS - 1, NOW_MS + 1)),
)
def test_a_row_is_appended_as_its_messages_one_by_one(
    steps: list[tuple[bytes, int, bytes]], seq: int, generation: int, time_ms: int
) -> None:
    """However a batch is divided into rows: by producers, by counters that are not the next, by
    what cannot be packed, by the first message of an epoch, or by the end of the log.
    """
    batch: list[Submission] = []
    last = {ALICE: 1, BOB: 0}
    for producer, step, body in steps:
        batch.append(message(last[producer] + step, body, producer=producer))
        if step == 1 and body != UNPACKABLE:
            last[producer] += 1
    known: dict[bytes, tuple[int, Stack]] = {ALICE: (1, (3,))}

    def made() -> View:
        return view(batch, LogEnd(3, EPOCH, 1, seq, time_ms, generation), known)

    together, one_by_one = made(), made()
    outcomes, changes = decide(together, batch, pack=pack_most)
    decision = Decision(one_by_one, now_ms=NOW_MS, pack=pack_most, random_bytes=lambda _: NEW_EPOCH)
    assert outcomes == [
        decision.offer(end, submission)
        for end, submission in zip(one_by_one.ends, batch, strict=True)
    ]
    assert changes.entries == decision.changes.entries
    assert changes.new_epochs == decision.changes.new_epochs
    ends = [
        [(end.counter, end.stack, end.log.seq, end.log.time_ms, end.log.epoch) for end in one.ends]
        for one in (together, one_by_one)
    ]
    assert ends[0] == ends[1]


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


def test_a_first_message_begins_a_room() -> None:
    """Its create entry comes before it, in the same commit, once."""
    batch = [message(1), message(1, producer=BOB), message(1)]
    outcomes, changes = decide(view(batch, NO_LOG.copy(), {}), batch, RULES)
    began, other, again = outcomes
    assert isinstance(began, Began)
    assert (began.first.seq, began.first.prev, began.seq, began.prev) == (1, 0, 2, 1)
    assert isinstance(other, Stored)
    assert (other.seq, again) == (3, Repeated(NEW_EPOCH, 2))
    assert len(changes.entries) == 3
    ((log_id, seq, guarded, due_ms, packed),) = changes.states.values()
    assert (log_id, seq, guarded, due_ms) == (5, 1, 0, 0)
    assert states.unpack(packed).created == 1


def test_a_message_that_cannot_be_stored_begins_no_room() -> None:
    """Its create entry would be committed and never distributed. The next message creates it."""
    batch = [message(1, b"cannot be packed"), message(1, b"can")]

    def pack(fields: tuple[object, ...]) -> bytes:
        if b"cannot be packed" in fields:
            raise ValueError
        return pack_entry(fields)

    outcomes, changes = decide(view(batch, NO_LOG.copy(), {}), batch, RULES, pack)
    assert isinstance(outcomes[0], LogRefused)
    began = outcomes[1]
    assert isinstance(began, Began)
    assert (began.first.seq, began.seq) == (1, 2)
    assert len(changes.entries) == 2


def test_a_message_behind_the_end_of_a_room_is_refused() -> None:
    """A message for the deleted room must not create a public one of its name."""
    ended = states.applied(Room(), events.Created(Kind.PRIVATE, True, b"r" * 32), "alice", 1)
    ended = states.applied(ended, events.Deleted(""), "alice", 2)
    log = LogEnd(3, EPOCH, 1, 7, NOW_MS, 2, guarded=True, packed_state=states.pack(ended))
    (outcome,), changes = decide(view([message(1)], log, {}), [message(1)], RULES)
    assert isinstance(outcome, Denied)
    assert (changes.entries, changes.states) == ([], {})


def test_rights_are_judged_in_the_order_of_the_log() -> None:
    """In one commit: messages before a ban are stored, those after it are not, and repeats are
    repeats; a change decided on an older state is refused.
    """
    room = states.applied(Room(), events.Created(Kind.PUBLIC, True, b"r" * 32), "alice", 1)
    log = LogEnd(3, EPOCH, 1, 1, NOW_MS, 2, packed_state=states.pack(room))
    ban = entry_of("lobby", 1, events.Banned("bob", b"", 5000, ""), "alice", b"")
    late = entry_of("lobby", 1, events.TopicSet("late"), "alice", b"")
    early = entry_of("lobby", 9, events.TopicSet("early"), "alice", b"")
    free = entry_of("lobby", 3, events.Freed("bob"), "alice", b"")
    bob = [message(n, producer=BOB)._replace(sender="bob") for n in (1, 2, 1, 2)]
    batch = [bob[0], ban, bob[1], bob[2], message(1), late, early, free, bob[3]]
    outcomes, changes = decide(view(batch, log, {}), batch, RULES)
    kinds = [type(one) for one in outcomes]
    assert kinds == [
        Stored, Stored, Denied, Repeated, Stored, IdConflict, Denied, Stored, Stored,
    ]  # fmt: skip
    assert [one.refused.reason for one in outcomes if isinstance(one, Denied)] == [
        Reason.BANNED,
        Reason.CHANGED,
    ]
    assert changes.states[3][1:4] == (5, 0, 0)
    assert len(changes.entries) == 5


def test_a_damaged_state_costs_its_log_alone() -> None:
    """Submissions to other logs in the same commit are not affected."""
    damaged = LogEnd(3, EPOCH, 1, 1, NOW_MS, 2, guarded=True, packed_state=b"\xc1")
    topic = entry_of("lobby", 1, events.TopicSet("tea"), "alice", b"")
    batch = [message(1), topic, message(1, log="other")]
    made = view(batch, damaged, {})
    other = LogEnd(4, EPOCH, 1, 1, NOW_MS, 2)
    made.producers["other", ALICE] = made.ends[2] = ProducerEnd(other, 0, (), 0)
    outcomes, changes = decide(made, batch, RULES)
    assert [type(one) for one in outcomes] == [LogUnreadable, LogUnreadable, Stored]
    assert damaged.seq == 1
    assert len(changes.entries) == 1


def test_the_epoch_of_another_generation_ends() -> None:
    log = LogEnd(3, EPOCH, 1, 7, NOW_MS + 5, generation=1)
    batch = [message(4), message(3), message(5)]
    made = view(batch, log, {ALICE: (3, (7,))})
    entry = unpacked([*committed(message(3), EPOCH, 7, 6, NOW_MS)])
    made.originals["lobby", ALICE, 3] = Original(7, EPOCH, entry)
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
    """As with a replicated log: the same changes make the same tables, at any time and place."""
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
    append(partition, *messages(46, 75), message(2, log="other"))

    replica = open_partition(here)
    opened = replica._opened
    assert opened is not None
    for changes, day in carried:
        opened.connection.execute("BEGIN IMMEDIATE")
        apply.write(opened.connection, changes, day)
        opened.connection.execute("COMMIT")
        opened.unflushed.apply(changes)
        opened.committed.apply(changes)

    def tables(of: SqlitePartition) -> list[object]:
        assert of._opened is not None
        return [
            rows(of._opened.connection, f"SELECT * FROM {table}")  # noqa: S608
            for table in ("log", "epoch", "entry", "producer", "unflushed", "state")
        ]

    assert tables(replica) == tables(partition)
    assert all(tables(replica)[:5])
    for each in (replica, partition):
        [stored] = append(each, message(76))
        assert (stored.seq, stored.prev) == (77, 76)
        assert replica.head("other") == partition.head("other")
    partition.close()
    replica.close()
