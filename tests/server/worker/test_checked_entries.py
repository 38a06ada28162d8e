"""Stored entries are checked once, however many read them, and each before it is first sent."""

from __future__ import annotations

from relay.server.worker.member.checked_entries import CheckedEntries
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import pack_entry

EPOCH, KEY_ID, PRODUCER = bytes(8), bytes(16), bytes(16)


def rows(first: int, last: int, log: str = "lobby") -> list[tuple[int, bytes]]:
    return [
        (seq, pack_entry(EntryMessage(
            log, EPOCH, seq, seq - 1, 0, "alice", KEY_ID, PRODUCER, seq, 0, "", b"x"
        )))
        for seq in range(first, last + 1)
    ]  # fmt: skip


def test_each_entry_is_checked_once() -> None:
    checked = CheckedEntries()
    for first, last, new in [
        (11, 20, 10),
        (11, 20, 0),
        (14, 17, 0),  # another cursor
        (21, 30, 10),  # the next page
        (11, 30, 0),
        (25, 34, 10),  # four of which are new
        (31, 34, 0),
        (5, 10, 6),  # before it
        (5, 34, 0),
        (40, 44, 5),  # elsewhere: only one interval is remembered, and no read lies between
        (5, 34, 30),
    ]:
        before = checked.entries
        assert checked.unreadable("lobby", EPOCH, rows(first, last), first - 1) == set()
        assert checked.entries - before == new, (first, last)
    assert checked.unreadable("hall", EPOCH, rows(1, 5, "hall"), 0) == set()
    assert checked.unreadable("lobby", EPOCH, rows(5, 34), 4) == set()
    assert checked.entries == before + 30 + 5


def test_what_is_bad_is_bad_each_time() -> None:
    """And so is every entry read together with it."""
    checked = CheckedEntries()
    page = rows(1, 9)
    page[4] = (5, page[4][1][:-1])
    for _ in range(2):
        assert checked.unreadable("lobby", EPOCH, page, 0) == {5}
        assert checked.unreadable("lobby", EPOCH, page[5:], 5) == set()
    assert checked.unreadable("lobby", EPOCH, rows(1, 9, "hall"), 0) == set(range(1, 10)), (
        "of another log"
    )


def test_the_number_of_logs_is_bounded_and_all_can_be_forgotten() -> None:
    checked = CheckedEntries(logs_max=2)
    for log in ("one", "two", "one", "three", "one", "two"):
        checked.unreadable(log, EPOCH, rows(1, 1, log), 0)
    assert checked.entries == 4, "of the three logs, the least recently read one was forgotten"
    checked.unreadable("two", b"another ", rows(1, 1, "two"), 0)
    assert checked.entries == 5, "a log of another epoch is checked anew"
    checked.forget()
    checked.unreadable("two", EPOCH, rows(1, 1, "two"), 0)
    assert checked.entries == 6
