"""Copies of direct messages that were pending when their partition was opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.chat.entries import Entry, Extra, Kind, Submission
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.home.direct.copies import RESUMED_PER_STEP, Copies
from relay.store.errors import StoreCorrupt
from relay.store.log import Page
from relay.store.reading.reader import SqliteReader
from relay.wire.packing import unpack_entry
from tests.support.logs import ALICE, append, open_partition

INBOX = "@alice"
PEERS = [f"peer-{number:02}" for number in range(RESUMED_PER_STEP * 2 + 1)]


def to(peer: str, counter: int) -> Submission:
    """A message of alice."""
    return Submission(
        INBOX, "alice", b"", ALICE, counter, int(Kind.MESSAGE), "text/plain", b"%d" % counter,
        extra=Extra(verdict=0, to=peer),
    )  # fmt: skip


class Opened:
    """A partition that was opened with two pending messages to each peer."""

    def __init__(self, directory: Path) -> None:
        self.partition = open_partition(directory)
        append(self.partition, *[to(peer, n) for n, peer in enumerate(PEERS * 2, 1)])
        self.reader = SqliteReader(self.partition.path)
        self.sent: list[Submission] = []
        self.confirmed: list[tuple[str, int]] = []
        self.steps: list[Callable[[], None]] = []
        self.read = 0
        self.unreadable = 0
        self.copies = Copies(
            send=self.sent.append,
            reader_of=lambda _: self.reader,
            unpack=self._unpack,
            confirm=lambda *place: self.confirmed.append(place),
            later=lambda _, step: self.steps.append(step),
            damaged=DamagedLogs(time.monotonic),
        )

    def _unpack(self, packed: bytes) -> Entry:
        self.read += 1
        entry = unpack_entry(packed)
        if entry.seq == self.unreadable:
            raise ValueError
        return entry

    def step(self) -> None:
        """Run the callbacks that were scheduled."""
        steps, self.steps = self.steps, []
        for step in steps:
            step()

    def sent_to(self, peer: str) -> list[int]:
        """Return the sequence numbers sent."""
        return [one.extra.origin_seq for one in self.sent if one.extra and one.extra.to == peer]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.reader.close()
    made.partition.close()


def test_no_entry_is_read_while_a_partition_is_opened(opened: Opened) -> None:
    """However many are pending; then the entries of a few pairs of inboxes are read per turn."""
    opened.copies.resume(opened.partition.pending())
    assert (opened.read, opened.sent) == (0, [])
    assert opened.copies.count == len(PEERS) * 2
    for pairs in (RESUMED_PER_STEP, RESUMED_PER_STEP * 2, len(PEERS)):
        opened.step()
        assert len(opened.sent) == opened.read == pairs * 2
    assert not opened.steps
    for n, peer in enumerate(PEERS, 1):
        assert opened.sent_to(peer) == [n, n + len(PEERS)]


def test_what_is_new_follows_what_was_pending(opened: Opened) -> None:
    """Although the turn that reads the pending ones has not run yet."""
    opened.copies.resume(opened.partition.pending())
    (new,) = append(opened.partition, to(PEERS[-1], len(PEERS) * 2 + 1))
    opened.copies.accepted(INBOX, PEERS[-1], new.seq)
    assert opened.sent_to(PEERS[-1]) == [len(PEERS), len(PEERS) * 2, new.seq]
    while opened.steps:
        opened.step()
    assert len(opened.sent) == len(PEERS) * 2 + 1, "each once"


def test_what_was_given_away_meanwhile_is_left_to_its_home(opened: Opened) -> None:
    opened.copies.resume(opened.partition.pending())
    opened.copies.forget_others(lambda _: False)
    while opened.steps:
        opened.step()
    assert (opened.sent, opened.copies.count) == ([], 0)


def test_an_entry_that_cannot_be_unpacked_holds_up_its_recipient_alone(opened: Opened) -> None:
    opened.unreadable = 1
    opened.copies.resume(opened.partition.pending())
    for _ in range(3):
        opened.step()
    assert opened.sent_to(PEERS[0]) == []
    assert len(opened.sent) == len(PEERS) * 2 - 2
    opened.unreadable = 0
    opened.step()
    assert opened.sent_to(PEERS[0]) == [1, 1 + len(PEERS)]


def test_a_peer_that_nothing_tells_holds_up_nobody(opened: Opened) -> None:
    """The entry that names the peer cannot be read: it stays pending, and the partition opens."""
    opened.unreadable = 1
    opened.copies.resume([(INBOX, 1, ""), (INBOX, 2, "")])
    opened.step()
    assert [one.extra.origin_seq for one in opened.sent if one.extra] == [2]
    assert opened.confirmed == []


def test_a_peer_on_a_damaged_page_holds_up_nobody(tmp_path: Path) -> None:
    """Likewise: nobody can read the entry, so its partition must not wait for it."""
    opened = Opened(tmp_path)

    class Damaged(SqliteReader):
        def read(
            self, log: str, after: int, upto: int, bytes_max: int, count: int | None = None
        ) -> Page:
            if after == 0:
                raise StoreCorrupt("a page of it is damaged")
            return super().read(log, after, upto, bytes_max, count)

    opened.reader.close()
    opened.reader = Damaged(opened.partition.path)
    opened.copies.resume([(INBOX, 1, ""), (INBOX, 2, "")])
    opened.step()
    assert [one.extra.origin_seq for one in opened.sent if one.extra] == [2]
    assert opened.confirmed == []
    opened.reader.close()
    opened.partition.close()


def test_a_peer_that_no_table_has_is_in_the_entry(opened: Opened) -> None:
    """What is no longer stored is not pending any more."""
    opened.copies.resume([(INBOX, 1, ""), (INBOX, 1000, "")])
    opened.step()
    assert opened.sent_to(PEERS[0]) == [1]
    assert opened.confirmed == [(INBOX, 1000)]
