"""The suite that any storage backend must pass, unchanged: ``class TestX(LogContract)`` with a
fixture.

The fixture ``backend`` gives a fresh, empty partition of the backend.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from relay import limits
from relay.chat.entries import NO_EPOCH, Cursor, GapInfo, GapReason, Head, Submission
from relay.store.errors import NotTheWriter
from relay.store.log import (
    Expected,
    IdConflict,
    Outcome,
    Partition,
    Reader,
    Repeated,
    ResumePoint,
    Stored,
    UnknownOutcome,
)
from relay.store.read_budget import ReadBudget
from tests.support.logs import (
    BOB,
    NOW_MS,
    PAGE_BYTES,
    append,
    entries,
    message,
    messages,
    stored,
)

OTHER_EPOCH = b"no epoch"


class Backend(Protocol):
    """One partition, and what can happen to it."""

    def open(self) -> Partition:
        """Open it for writing."""

    def reader(self) -> Reader:
        """Make another reader of it."""

    def kill(self, partition: Partition) -> None:
        """Kill the writer's process."""

    def lose_machine(self, partition: Partition) -> None:
        """Stop the writer's machine: commits not forced to the disk may be lost."""


class LogContract:
    """Every guarantee of ``relay.store.log`` as a test."""

    # --- appending ------------------------------------------------------------------------------
    def test_numbers_entries_from_one_without_holes_in_prev(self, backend: Backend) -> None:
        first = append(backend.open(), *messages(1, 3))
        assert [(s.prev, s.seq) for s in first] == [(0, 1), (1, 2), (2, 3)]
        assert len({s.epoch for s in first}) == 1
        assert first[0].epoch != NO_EPOCH

    def test_logs_are_numbered_apart_and_have_their_own_epochs(self, backend: Backend) -> None:
        partition = backend.open()
        one, other = append(partition, message(1), message(1, log="other"))
        assert one.seq == other.seq == 1
        assert one.epoch != other.epoch
        assert partition.head("lobby") == Head(one.epoch, 1)
        assert partition.head("other") == Head(other.epoch, 1)

    def test_an_entry_carries_all_that_was_submitted(self, backend: Backend) -> None:
        submission = message(1, b"\x00 body \xff")._replace(
            key_id=b"k" * 32, content_type="text/x", sender="bob", kind=3
        )
        [outcome] = append(backend.open(), submission)
        page = backend.reader().read("lobby", 0, 1, PAGE_BYTES)
        assert page.rows == [(1, outcome.packed)]
        [entry] = entries(page)
        assert entry.epoch == outcome.epoch
        judged_by = {"root", "operator", "identity", "extra"}
        for field, value in submission._asdict().items():
            if field in judged_by:
                continue
            assert getattr(entry, field) == value
        assert (entry.seq, entry.prev, entry.time_ms) == (1, 0, NOW_MS)

    def test_a_log_exists_from_its_first_append_only(self, backend: Backend) -> None:
        partition = backend.open()
        assert partition.append([message(5)], NOW_MS) == [UnknownOutcome()]
        assert partition.head("lobby") == Head(NO_EPOCH, 0)
        reader = backend.reader()
        assert reader.read("lobby", 0, 0, PAGE_BYTES) == ([], True)
        assert reader.read_back("lobby", 1, 10, PAGE_BYTES) == ([], True)
        assert reader.epoch_at("lobby", 0) == NO_EPOCH
        assert reader.floor_of_last("lobby", 10, 0) == 0

    def test_an_empty_batch_changes_nothing(self, backend: Backend) -> None:
        partition = backend.open()
        assert partition.append([], NOW_MS) == []

    def test_a_message_alone_is_stored_as_by_append_or_not_at_all(self, backend: Backend) -> None:
        partition = backend.open()
        stored = append(partition, *messages(1, 2))
        for counter in (3, 4):
            one = partition.append_lone(message(counter), NOW_MS)
            assert partition.head("lobby").seq == (counter - 1 if one is None else counter)
            stored += append(partition, message(counter)) if one is None else [one]
        assert [s.prev for s in stored] == [0, 1, 2, 3]
        for other in (message(4), message(9), message(1, producer=BOB), message(1, log="new")):
            assert partition.append_lone(other, NOW_MS) is None
        backend.kill(partition)
        assert backend.open().append([message(4)], NOW_MS) == [Repeated(stored[0].epoch, 4)]
        rows = backend.reader().read("lobby", 0, 4, PAGE_BYTES).rows
        assert rows == [(one.seq, one.packed) for one in stored]

    def test_time_never_goes_back_in_a_log(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, message(1), now_ms=NOW_MS)
        append(partition, message(2), now_ms=NOW_MS - 10_000)
        backend.kill(partition)
        append(backend.open(), message(3), now_ms=NOW_MS - 20_000)
        page = backend.reader().read("lobby", 0, 3, PAGE_BYTES)
        assert [entry.time_ms for entry in entries(page)] == [NOW_MS] * 3

    # --- invariant "Once, in order" ---------------------------------------------------------------
    def test_a_resent_message_is_the_one_that_was_stored(self, backend: Backend) -> None:
        partition = backend.open()
        first = append(partition, *messages(1, 5))
        assert partition.append(messages(2, 4), NOW_MS) == [
            Repeated(s.epoch, s.seq) for s in first[1:4]
        ]
        assert partition.head("lobby").seq == 5

    def test_repeats_within_one_batch(self, backend: Backend) -> None:
        outcomes = backend.open().append([*messages(1, 3), *messages(1, 4)], NOW_MS)
        epoch = stored(outcomes[0]).epoch
        assert outcomes[3:6] == [Repeated(epoch, 1), Repeated(epoch, 2), Repeated(epoch, 3)]
        assert stored(outcomes[6]).seq == 4

    def test_another_content_under_the_same_id_conflicts(self, backend: Backend) -> None:
        partition = backend.open()
        outcomes = partition.append([*messages(1, 2), message(2, b"other")], NOW_MS)
        assert outcomes[2] == IdConflict(2)
        assert partition.append([message(1, b"other"), message(1)], NOW_MS) == [
            IdConflict(1),
            Repeated(stored(outcomes[0]).epoch, 1),
        ]
        other_type = message(1)._replace(content_type="text/html")
        assert partition.append([other_type], NOW_MS) == [IdConflict(1)]

    def test_all_after_a_skipped_counter_are_sent_again(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, *messages(1, 2))
        assert partition.append(messages(4, 6), NOW_MS) == [Expected(3)] * 3
        outcomes = partition.append([message(4), message(3), message(4)], NOW_MS)
        assert outcomes[0] == Expected(3)
        assert [stored(outcome).seq for outcome in outcomes[1:]] == [3, 4]

    def test_one_bad_message_does_not_touch_those_of_others(self, backend: Backend) -> None:
        batch = [message(2), message(1, producer=BOB), message(3), message(1)]
        outcomes = backend.open().append(batch, NOW_MS)
        assert outcomes[0] == outcomes[2] == UnknownOutcome()
        assert [stored(outcomes[1]).seq, stored(outcomes[3]).seq] == [1, 2]

    def test_counters_are_per_producer_and_log(self, backend: Backend) -> None:
        partition = backend.open()
        batch = [message(1), message(1, producer=BOB), message(1, log="other"), message(2)]
        assert [s.seq for s in append(partition, *batch)] == [1, 2, 1, 3]
        assert partition.append([message(2, producer=BOB, log="other")], NOW_MS) == [
            UnknownOutcome()
        ]

    def test_a_long_resend_after_a_restart(self, backend: Backend) -> None:
        partition = backend.open()
        first: list[tuple[bytes, int]] = []
        for start in range(1, 5001, 500):
            both = [
                submission
                for n in range(start, start + 500)
                for submission in (message(n), message(n, producer=BOB))
            ]
            first += [(s.epoch, s.seq) for s in append(partition, *both)]
        backend.kill(partition)
        partition = backend.open()
        again: list[object] = []
        for start in range(1, 5001, 100):
            again += partition.append(messages(start, start + 99, producer=BOB), NOW_MS)
        assert again == [Repeated(*place) for place in first[1::2]]
        assert append(partition, message(5001, producer=BOB))[0].seq == 10_001

    def test_what_was_acknowledged_survives_the_writer(self, backend: Backend) -> None:
        partition = backend.open()
        first = append(partition, *messages(1, 3))
        backend.kill(partition)
        partition = backend.open()
        assert partition.head("lobby") == Head(first[0].epoch, 3)
        assert partition.append([message(3)], NOW_MS) == [Repeated(first[0].epoch, 3)]
        assert append(partition, message(4))[0][:3] == (first[0].epoch, 4, 3)

    # --- what a batch may cost ------------------------------------------------------------------
    def test_what_many_sent_alone_is_known_to_the_next_writer(self, backend: Backend) -> None:
        """A commit for each message, and a writer that dies after any number of them."""
        partition = backend.open()
        producers = [bytes([number]) * 8 for number in range(1, 8)]
        sent: list[Submission] = []
        for number in range(150):
            one = message(number // 7 + 1, producer=producers[number % 7])
            append(partition, one)
            sent.append(one)
            if number % 10 == 9:
                backend.kill(partition)
                partition = backend.open()
                again = partition.append(sent, NOW_MS)
                assert [type(outcome) for outcome in again] == [Repeated] * len(sent)

    def test_what_is_new_from_known_producers_needs_no_read(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, message(1), message(1, producer=BOB))
        budget = ReadBudget(0)
        batch = [*messages(2, 200), message(2, producer=BOB), message(2), message(500)]
        outcomes = partition.append(batch, NOW_MS, budget)
        # Repeats within one batch are known, too; and so are messages out of turn.
        assert [type(outcome) for outcome in outcomes[-3:]] == [Stored, Repeated, Expected]
        assert len(outcomes) == len(batch)
        assert budget.spent == [0] * len(batch)

    def test_a_budget_ends_a_batch_early_and_the_rest_can_be_given_again(
        self, backend: Backend
    ) -> None:
        partition = backend.open()
        first = append(partition, *messages(1, 300))
        batch = [*messages(1, 100), *messages(301, 305), *messages(150, 160), message(306)]
        outcomes: list[Outcome] = []
        parts = 0
        while len(outcomes) < len(batch):
            budget = ReadBudget(10)
            part = partition.append(batch[len(outcomes) :], NOW_MS, budget)
            assert len(part) == len(budget.spent) > 0
            assert sum(budget.spent[:-1]) < 10
            outcomes += part
            parts += 1
        assert parts > 10
        assert [o.seq for o in outcomes if isinstance(o, Stored | Repeated)] == [
            submission.counter for submission in batch
        ]
        assert [type(o) for o in outcomes[100:105]] == [Stored] * 5
        assert outcomes[:100] == [Repeated(s.epoch, s.seq) for s in first[:100]]

    def test_a_deadline_ends_a_batch_after_its_first_repeat(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, *messages(1, 50))
        budget = ReadBudget(10**6, until_s=0.0)
        outcomes = partition.append([*messages(51, 60), *messages(1, 50)], NOW_MS, budget)
        assert [type(outcome) for outcome in outcomes] == [Stored] * 10 + [Repeated]
        assert [spent > 0 for spent in budget.spent] == [False] * 10 + [True]

    def test_what_a_repeat_costs_is_known(self, backend: Backend) -> None:
        """The last ones are cheap, a resend in order is, and any other is bounded."""
        partition = backend.open()
        for start in range(1, 4001, 500):
            append(partition, *messages(start, start + 499))

        def cost(*batch: Submission) -> list[int]:
            budget = ReadBudget(10**6)
            outcomes = partition.append(list(batch), NOW_MS, budget)
            assert {type(outcome) for outcome in outcomes} <= {Repeated, IdConflict}
            return budget.spent

        assert cost(message(4000)) == [1]
        assert max(cost(message(1), message(2047), message(2049), message(3999))) < 12 * 12
        assert sum(cost(*messages(2001, 3000))) < 3 * 1000
        assert cost(message(4000, b"other")) == [1]

    def test_a_counter_of_long_ago_is_refused_without_a_look(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "REPEATS_BACK_MAX", 100)
        partition = backend.open()
        append(partition, *messages(1, 200))
        budget = ReadBudget(0)
        assert partition.append(messages(1, 100), NOW_MS, budget) == [IdConflict(0)] * 100
        assert budget.spent == [0] * 100
        [repeated] = partition.append([message(101)], NOW_MS)
        assert isinstance(repeated, Repeated)
        assert repeated.seq == 101

    # --- invariant "One writer per partition" -----------------------------------------------------
    def test_there_is_one_writer_at_a_time(self, backend: Backend) -> None:
        partition = backend.open()
        with pytest.raises(NotTheWriter):
            backend.open()
        append(partition, message(1))
        partition.close()
        append(backend.open(), message(2))

    # --- reading --------------------------------------------------------------------------------
    def test_pages_follow_each_other_to_the_end(self, backend: Backend) -> None:
        append(backend.open(), *messages(1, 100))
        reader = backend.reader()
        seen: list[int] = []
        while True:
            page = reader.read("lobby", seen[-1] if seen else 0, 100, 1000)
            seen += [entry.seq for entry in entries(page)]
            if page.end:
                break
            assert 0 < sum(len(packed) for _, packed in page.rows) <= 1000
        assert seen == list(range(1, 101))

    def test_never_shows_what_is_above_the_head(self, backend: Backend) -> None:
        append(backend.open(), *messages(1, 10))
        reader = backend.reader()
        page = reader.read("lobby", 2, 6, PAGE_BYTES)
        assert [seq for seq, _ in page.rows] == [3, 4, 5, 6]
        assert page.end
        assert reader.read("lobby", 6, 6, PAGE_BYTES) == ([], True)
        assert reader.read("lobby", 8, 6, PAGE_BYTES) == ([], True)

    def test_end_says_whether_anything_lies_beyond(self, backend: Backend) -> None:
        append(backend.open(), *messages(1, 10))
        reader = backend.reader()
        assert not reader.read("lobby", 0, 10, PAGE_BYTES, 9).end
        assert reader.read("lobby", 0, 10, PAGE_BYTES, 10).end
        assert reader.read("lobby", 0, 9, PAGE_BYTES, 9).end
        assert not reader.read_back("lobby", 11, 9, PAGE_BYTES).end
        assert reader.read_back("lobby", 11, 10, PAGE_BYTES).end

    def test_a_page_has_at_least_one_entry(self, backend: Backend) -> None:
        append(backend.open(), message(1, b"x" * 30_000), message(2, b"y" * 30_000))
        reader = backend.reader()
        assert [seq for seq, _ in reader.read("lobby", 0, 2, 10).rows] == [1]
        assert [seq for seq, _ in reader.read_back("lobby", 3, 5, 10).rows] == [2]

    def test_reads_back_in_ascending_order(self, backend: Backend) -> None:
        append(backend.open(), *messages(1, 10))
        reader = backend.reader()
        page = reader.read_back("lobby", 8, 3, PAGE_BYTES)
        assert [entry.seq for entry in entries(page)] == [5, 6, 7]
        assert not page.end
        page = reader.read_back("lobby", 3, 100, PAGE_BYTES)
        assert [entry.seq for entry in entries(page)] == [1, 2]
        assert page.end
        assert reader.read_back("lobby", 1, 100, PAGE_BYTES) == ([], True)

    def test_the_last_entries_begin_where_floor_of_last_says(self, backend: Backend) -> None:
        append(backend.open(), *messages(1, 10))
        reader = backend.reader()
        assert reader.floor_of_last("lobby", 3, 10) == 7
        assert reader.floor_of_last("lobby", 3, 5) == 2
        assert reader.floor_of_last("lobby", 100, 10) == 0

    def test_a_reader_that_was_first_sees_what_comes(self, backend: Backend) -> None:
        reader = backend.reader()
        assert reader.read("lobby", 0, 5, PAGE_BYTES) == ([], True)
        assert reader.resume("lobby", Cursor(NO_EPOCH, 0), Head(NO_EPOCH, 0)) == (0, None)
        partition = backend.open()
        for counter in (1, 2):
            append(partition, message(counter))
            assert len(reader.read("lobby", 0, 5, PAGE_BYTES).rows) == counter

    def test_readers_go_on_without_a_writer(self, backend: Backend) -> None:
        partition = backend.open()
        reader = backend.reader()
        append(partition, *messages(1, 3))
        assert len(reader.read("lobby", 0, 3, PAGE_BYTES).rows) == 3
        partition.close()
        assert len(reader.read("lobby", 0, 3, PAGE_BYTES).rows) == 3
        assert len(backend.reader().read("lobby", 0, 3, PAGE_BYTES).rows) == 3

    def test_logs_side_by_side_are_not_mixed(self, backend: Backend) -> None:
        partition = backend.open()
        names = [f"room-{n}" for n in range(5)]
        for counter in range(1, 4):
            append(partition, *[message(counter, log=name) for name in names])
        for name in names:
            found = entries(backend.reader().read(name, 0, 100, PAGE_BYTES))
            assert [(entry.log, entry.seq) for entry in found] == [(name, n) for n in (1, 2, 3)]
            assert len(backend.reader().read_back(name, 100, 100, PAGE_BYTES).rows) == 3

    # --- invariant "Epochs are segments" ----------------------------------------------------------
    def test_a_clean_start_and_a_killed_writer_keep_the_epoch(self, backend: Backend) -> None:
        partition = backend.open()
        epoch = append(partition, message(1))[0].epoch
        partition.close()
        partition = backend.open()
        assert append(partition, message(2))[0].epoch == epoch
        backend.kill(partition)
        assert append(backend.open(), message(3))[0].epoch == epoch

    def test_a_lost_machine_begins_new_epochs_at_the_next_append(self, backend: Backend) -> None:
        partition = backend.open()
        old = append(partition, *messages(1, 3))[0].epoch
        backend.lose_machine(partition)
        partition = backend.open()
        assert partition.head("lobby") == Head(old, 3)
        new, again = append(partition, *messages(4, 5))
        assert new.epoch != old
        assert new[1:3] == (4, 3)
        assert again.epoch == new.epoch
        assert partition.append([message(2), message(4)], NOW_MS) == [
            Repeated(old, 2),
            Repeated(new.epoch, 4),
        ]
        reader = backend.reader()
        assert [reader.epoch_at("lobby", seq) for seq in (0, 1, 3, 4, 5)] == [
            NO_EPOCH,
            old,
            old,
            new.epoch,
            new.epoch,
        ]

    def test_resumes_within_the_epoch(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, *messages(1, 5))
        head = partition.head("lobby")
        reader = backend.reader()
        for seq in range(6):
            for epoch in (head.epoch, NO_EPOCH):
                assert reader.resume("lobby", Cursor(epoch, seq), head) == ResumePoint(seq, None)

    def test_a_cursor_beyond_the_head_is_told_so(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, *messages(1, 5))
        head = partition.head("lobby")
        for epoch in (head.epoch, NO_EPOCH):
            cursor = Cursor(epoch, 9)
            assert backend.reader().resume("lobby", cursor, head) == ResumePoint(
                5, GapInfo(cursor, Cursor(*head), GapReason.AHEAD)
            )

    def test_a_reader_from_a_worker_that_is_further_waits(self, backend: Backend) -> None:
        partition = backend.open()
        append(partition, *messages(1, 5))
        behind = Head(partition.head("lobby").epoch, 3)
        cursor = Cursor(behind.epoch, 5)
        assert backend.reader().resume("lobby", cursor, behind) == ResumePoint(5, None)
        nothing = Head(NO_EPOCH, 0)
        assert backend.reader().resume("lobby", cursor, nothing) == ResumePoint(5, None)

    def test_an_old_epoch_goes_on_or_has_one_gap(self, backend: Backend) -> None:
        partition = backend.open()
        old = append(partition, *messages(1, 3))[0].epoch
        backend.lose_machine(partition)
        partition = backend.open()
        append(partition, *messages(4, 8))
        head = partition.head("lobby")
        reader = backend.reader()
        for seq in range(4):
            assert reader.resume("lobby", Cursor(old, seq), head) == ResumePoint(seq, None)
        lost = Cursor(old, 6)
        point = reader.resume("lobby", lost, head)
        assert point == ResumePoint(3, GapInfo(lost, Cursor(old, 3), GapReason.EPOCH))
        assert point.gap is not None
        # What the gap ends with is a cursor that goes on, and the next entry's prev.
        assert reader.resume("lobby", point.gap.end, head) == ResumePoint(3, None)
        assert entries(reader.read("lobby", point.after, head.seq, PAGE_BYTES))[0].prev == 3

    def test_an_epoch_nobody_knows_has_one_gap_to_the_newest(self, backend: Backend) -> None:
        partition = backend.open()
        first = append(partition, *messages(1, 3))[0].epoch
        cursor = Cursor(OTHER_EPOCH, 7)
        reader = backend.reader()
        head = partition.head("lobby")
        assert reader.resume("lobby", cursor, head) == ResumePoint(
            0, GapInfo(cursor, Cursor(NO_EPOCH, 0), GapReason.EPOCH)
        )
        backend.lose_machine(partition)
        partition = backend.open()
        append(partition, *messages(4, 8))
        head = partition.head("lobby")
        assert reader.resume("lobby", cursor, head) == ResumePoint(
            3, GapInfo(cursor, Cursor(first, 3), GapReason.EPOCH)
        )

    def test_cursors_into_a_log_that_does_not_exist(self, backend: Backend) -> None:
        append(backend.open(), message(1, log="other"))
        reader = backend.reader()
        nothing = Head(NO_EPOCH, 0)
        cursor, end = Cursor(OTHER_EPOCH, 7), Cursor(NO_EPOCH, 0)
        assert reader.resume("lobby", end, nothing) == ResumePoint(0, None)
        assert reader.resume("lobby", cursor, nothing) == ResumePoint(
            0, GapInfo(cursor, end, GapReason.EPOCH)
        )
        unbound = Cursor(NO_EPOCH, 7)
        assert reader.resume("lobby", unbound, nothing) == ResumePoint(
            0, GapInfo(unbound, end, GapReason.AHEAD)
        )

    def test_batches_that_overlap_what_is_stored(self, backend: Backend) -> None:
        partition = backend.open()
        last = 0
        for size in (1, 2, 3, 64, 65, 127, 1):
            batch = messages(max(1, last - 70), last + size)
            outcomes = partition.append([*batch, message(last + size + 2)], NOW_MS)
            places = [o for o in outcomes if isinstance(o, Stored | Repeated)]
            assert [place.seq for place in places] == [submission.counter for submission in batch]
            last += size
            assert outcomes[-1] == Expected(last + 1)
        found = entries(backend.reader().read("lobby", 0, last, 10**6))
        assert [entry.counter for entry in found] == list(range(1, last + 1))
