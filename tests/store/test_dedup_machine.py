"""Random sends, resends, skips, kills and checkpoints against a small model.

Invariant "Once, in order".
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.store.file.checkpoint import finish
from relay.store.log import (
    Began,
    Denied,
    Expected,
    Forbidden,
    IdConflict,
    LogRefused,
    LogUnreadable,
    Outcome,
    Repeated,
    Stored,
    UnknownOutcome,
)
from relay.store.read_budget import ReadBudget
from relay.store.reading.reader import SqliteReader
from tests.support.logs import NOW_MS, append_as_home, die, entries, message, open_partition

LOGS = ("lobby", "other")
PRODUCERS = (b"producer", b"consumer", b"anybody.")
OFFERS = st.tuples(
    st.sampled_from(LOGS),
    st.sampled_from(PRODUCERS),
    st.integers(-70, 2),  # from the next counter
    st.sampled_from((b"body", b"other body")),
)


class Dedup(RuleBasedStateMachine):
    """The model of a log is the list of its (producer, counter, body)."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.tail_max = self.entries_max = 64
        self.open()
        self.reader = SqliteReader(self.partition.path)
        self.model: dict[str, list[tuple[bytes, int, bytes]]] = {log: [] for log in LOGS}
        self.floors = dict.fromkeys(LOGS, 0)

    def teardown(self) -> None:
        self.reader.close()
        self.partition.close()
        shutil.rmtree(self.directory)

    def open(self, boot_id: str = "boot 1") -> None:
        self.partition = open_partition(self.directory, boot_id=boot_id)
        self.bound()

    def bound(self) -> None:
        opened = self.partition._opened
        assert opened is not None
        opened.unflushed.tail_max, opened.unflushed.entries_max = self.tail_max, self.entries_max
        opened.committed.producers_max = 2  # of the six that exist

    def last(self, log: str, producer: bytes) -> int:
        return sum(1 for entry in self.model[log] if entry[0] == producer)

    def expect(self, log: str, producer: bytes, counter: int, body: bytes) -> tuple[type, int]:
        """Compute the expected results, and apply them to the model."""
        entries = self.model[log]
        last = self.last(log, producer)
        if counter == last + 1:
            entries.append((producer, counter, body))
            return Stored, len(entries)
        if counter > last:
            return (Expected, last + 1) if last else (UnknownOutcome, 0)
        for seq, entry in enumerate(entries, 1):
            if entry[:2] == (producer, counter):
                return (Repeated if entry[2] == body else IdConflict), seq
        raise AssertionError("the model lost an entry")

    @rule(offers=st.lists(OFFERS, max_size=20), reads_max=st.none() | st.integers(0, 30))
    def append(self, offers: list[tuple[str, bytes, int, bytes]], reads_max: int | None) -> None:
        batch, expected = [], []
        for log, producer, offset, body in offers:
            counter = max(1, self.last(log, producer) + 1 + offset)
            batch.append(message(counter, body, producer=producer, log=log))
            expected.append(self.expect(log, producer, counter, body))
        outcomes: list[Outcome] = []
        while len(outcomes) < len(batch):
            budget = None if reads_max is None else ReadBudget(reads_max)
            outcomes += append_as_home(self.partition, batch[len(outcomes) :], NOW_MS, budget)
        assert [described(outcome) for outcome in outcomes] == expected

    @rule(log=st.sampled_from(LOGS), producer=st.sampled_from(PRODUCERS), count=st.integers(1, 90))
    def send_many(self, log: str, producer: bytes, count: int) -> None:
        first = self.last(log, producer) + 1
        numbers = range(first, first + count)
        expected = [self.expect(log, producer, n, b"body") for n in numbers]
        batch = [message(n, b"body", producer=producer, log=log) for n in numbers]
        assert [described(o) for o in self.partition.append(batch, NOW_MS)] == expected

    @rule(offers=st.lists(OFFERS, max_size=20))
    def append_one_by_one(self, offers: list[tuple[str, bytes, int, bytes]]) -> None:
        """As most messages come: mostly a producer's next one."""
        for log, producer, offset, body in offers:
            counter = max(1, self.last(log, producer) + 1 + (offset if offset % 3 else 0))
            one = message(counter, body, producer=producer, log=log)
            expected = self.expect(log, producer, counter, body)
            assert [described(o) for o in append_as_home(self.partition, [one])] == [expected]

    @rule()
    def kill(self) -> None:
        die(self.partition)
        self.open()

    @rule()
    def restart(self) -> None:
        self.partition.close()
        self.open()

    @rule()
    def lose_machine(self) -> None:
        """Nothing is really lost, but the store cannot know that."""
        die(self.partition)
        self.open(boot_id=self.directory.name)

    @rule()
    def checkpoint(self) -> None:
        self.partition.flush()
        self.partition.checkpoint_begins()
        finish(self.partition.path)
        self.partition.checkpoint_ended()

    @rule(tail_max=st.integers(1, 70), entries_max=st.integers(0, 140))
    def bound_tails(self, tail_max: int, entries_max: int) -> None:
        """From now on producers are written occasionally, always, or hardly ever."""
        self.tail_max, self.entries_max = tail_max, entries_max
        self.bound()

    @rule(log=st.sampled_from(LOGS), count=st.integers(0, 90))
    def remove(self, log: str, count: int) -> None:
        """Removed entries are still known by their ids."""
        upto = min(self.floors[log] + count, len(self.model[log]))
        while (removed := self.partition.remove(log, upto, 0)).entries:
            self.floors[log] = removed.floor
        assert self.floors[log] == upto

    @invariant()
    def the_log_is_the_model(self) -> None:
        for log, model in self.model.items():
            assert self.partition.head(log).seq == len(model)
            floor = self.floors[log]
            found = entries(self.reader.read(log, floor, len(model), 10**9))
            assert [(e.producer, e.counter, e.body) for e in found] == model[floor:]
            assert [e.prev for e in found] == list(range(floor, len(model)))


def described(outcome: Outcome) -> tuple[type, int]:
    match outcome:
        case Stored(seq=number) | Repeated(seq=number) | IdConflict(seq=number):
            return type(outcome), number
        case Expected(counter=number):
            return Expected, number
        case UnknownOutcome() | LogRefused() | LogUnreadable() | Denied() | Forbidden() | Began():
            return type(outcome), 0


TestDedup = Dedup.TestCase
TestDedup.settings = settings(max_examples=30, stateful_step_count=25)
