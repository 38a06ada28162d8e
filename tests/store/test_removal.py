"""Logs that begin above 1: what was removed, what is still known of it, and what readers get."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from pathlib import Path

import apsw
import pytest

from relay.chat.entries import NO_EPOCH, Cursor, GapReason, Kind
from relay.store import contents, message_counter
from relay.store.checkpoint import Checkpointer, finish
from relay.store.examine import examine
from relay.store.generation import Host
from relay.store.log import Forbidden, IdConflict, Repeated
from relay.store.message_counter import MessageCounter
from relay.store.removal import ROWS_PER_STEP
from relay.store.removal_reader import RemovalReader
from relay.store.retention import AT_ONCE, Excess, Measured, RetentionLimits, stricter, upto
from relay.store.salvage import salvage
from relay.store.salvaged_log import SalvagedLog
from relay.store.schema import pragma
from relay.store.sqlite import SqlitePartition
from relay.store.stub import STUB_OF_ERASED
from relay.wire.packing import pack_entry, unpack_entry
from tests.store.test_direct import copy, offer, one
from tests.support.logs import (
    BOB,
    NOW_MS,
    PAGE_BYTES,
    append,
    die,
    message,
    messages,
    open_partition,
    read_logs,
    unnoticed,
)
from tests.support.scanning import leftovers

LOG = "lobby"


def removed(partition: SqlitePartition, last: int, log: str = LOG, controls: int = 0) -> int:
    """Remove up to an entry, in as many steps as needed; return how many."""
    steps = 0
    while partition.remove(log, last, controls).entries:
        steps += 1
    return steps


@pytest.fixture
def reader(tmp_path: Path) -> RemovalReader:
    return RemovalReader(tmp_path / "00.sqlite", MessageCounter(unpack_entry))


def seqs(reader: RemovalReader, log: str = LOG, after: int = 0) -> list[int]:
    return [seq for seq, _ in reader.read(log, after, 10**6, 10**9).rows]


def test_readers_get_what_is_kept(tmp_path: Path, reader: RemovalReader) -> None:
    """In steps; forward, back, and by count; readers behind get one gap."""
    partition = open_partition(tmp_path)
    *_, last = append(partition, *messages(1, 500))
    assert removed(partition, 300) == -(-300 // ROWS_PER_STEP)
    assert seqs(reader) == list(range(301, 501))
    assert seqs(reader, after=400) == list(range(401, 501))
    assert [seq for seq, _ in reader.read_back(LOG, 303, 10, PAGE_BYTES).rows] == [301, 302]
    assert reader.floor(LOG) == reader.floor_of_last(LOG, 1000, 500) == 300
    head = reader.head(LOG)
    assert head == partition.head(LOG) == (last.epoch, 500)
    for cursor in (Cursor(NO_EPOCH, 0), Cursor(last.epoch, 299)):
        after, gap = reader.resume(LOG, cursor, head)
        assert (after, gap and gap.end) == (300, (last.epoch, 300))
        assert gap is not None
        assert gap.reason == GapReason.RETENTION
    assert reader.resume(LOG, Cursor(last.epoch, 300), head) == (300, None)


def test_what_is_removed_leaves_pages_free(tmp_path: Path) -> None:
    """The remainders of messages share pages: otherwise no bound would keep a file from growing."""
    partition = open_partition(tmp_path)
    append(partition, *[message(n, b"x" * 200) for n in range(1, 2001)])
    finish(partition.path)

    def used() -> int:
        connection = apsw.Connection(str(partition.path), flags=apsw.SQLITE_OPEN_READONLY)
        with contextlib.closing(connection):
            pages, free = (pragma(connection, of) for of in ("page_count", "freelist_count"))
        assert isinstance(pages, int)
        assert isinstance(free, int)
        return (pages - free) * 4096

    before = used()
    removed(partition, 1990)
    finish(partition.path)
    assert used() < before / 3
    assert used() < 2000 * 100
    append(partition, *[message(n, b"x" * 200) for n in range(2001, 4001)])
    finish(partition.path)
    assert used() < before * 1.5
    partition.close()
    assert partition.path.stat().st_size < before * 1.5


def test_a_resend_of_what_was_removed_is_a_repeat(tmp_path: Path) -> None:
    """With its number; other content under its id is a conflict; also after a restart."""
    partition = open_partition(tmp_path)
    stored = append(partition, *messages(1, 50))
    append(partition, message(1, b"bob's", producer=BOB))
    removed(partition, 49)
    for again in (False, True):
        if again:
            die(partition)
            partition = open_partition(tmp_path)
        assert one(partition, message(7)) == Repeated(stored[6].epoch, 7)
        assert one(partition, message(7, b"else")) == IdConflict(7)
    assert append(partition, message(51))[0].seq == 52


def test_what_is_removed_can_be_no_target_and_its_edits_can(tmp_path: Path) -> None:
    partition = open_partition(tmp_path)
    [original] = append(partition, offer(1, Kind.MESSAGE, b"hello"))
    [edit] = append(partition, offer(2, Kind.EDIT, b"hallo", original))
    removed(partition, 1)
    for kind in (Kind.REACTION, Kind.REDACTION, Kind.EDIT, Kind.MESSAGE):
        assert one(partition, offer(3, kind, b"x", original)) == Forbidden(31)
    append(partition, offer(3, Kind.REDACTION, b"", edit))


@pytest.mark.parametrize("what", ["x'c1'", "'text'"])
def test_what_cannot_be_read_is_removed_like_others(
    tmp_path: Path, reader: RemovalReader, what: str
) -> None:
    partition = open_partition(tmp_path)
    append(partition, *messages(1, 8))
    partition.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    connection.execute(f"UPDATE entry SET packed={what} WHERE id & 0xff = 3")  # noqa: S608
    connection.close()
    unnoticed(partition)
    partition = open_partition(tmp_path)
    removed(partition, 5)
    assert seqs(reader) == [6, 7, 8]
    [again] = partition.append([message(3)], NOW_MS)
    assert isinstance(again, Repeated), "what was stored is never stored again"
    partition.close()


@pytest.mark.parametrize("what", ["x'c1'", "'text'"])
def test_a_control_entry_that_cannot_be_read_stays(
    tmp_path: Path, reader: RemovalReader, what: str
) -> None:
    """It may be of any kind, and the file still lists it. It is removed with the others."""
    partition = open_partition(tmp_path)
    control = message(3, log="@bob")._replace(kind=int(Kind.SYSTEM))
    append(partition, *messages(1, 2, log="@bob"), control, *messages(4, 8, log="@bob"))
    partition.close()
    connection = apsw.Connection(str(tmp_path / "00.sqlite"))
    found = "SELECT CAST(packed AS BLOB) FROM entry WHERE id & 0xff = 3"
    connection.execute(f"UPDATE entry SET packed={what} WHERE id & 0xff = 3")  # noqa: S608
    [damaged] = connection.execute(found).fetchall()
    unnoticed(partition)
    partition = open_partition(tmp_path)
    removed(partition, 5, "@bob")
    assert seqs(reader, "@bob", after=5) == [6, 7, 8]
    assert connection.execute(found).fetchall() == [damaged]
    assert connection.execute("SELECT seq FROM control").fetchall() == [(3,)]
    removed(partition, 5, "@bob", controls=5)
    assert connection.execute(found).fetchall() == [(STUB_OF_ERASED,)]
    assert connection.execute("SELECT seq FROM control").fetchall() == []
    connection.close()
    partition.close()


def test_what_must_stay(tmp_path: Path, reader: RemovalReader) -> None:
    """Control entries, from which states are folded; messages not yet copied; copies' origins."""
    partition = open_partition(tmp_path)
    append(
        partition,
        message(1, log="@bob")._replace(kind=int(Kind.SYSTEM)),
        copy(3),
        offer(2, Kind.MESSAGE, b"to carol", log="@bob", to="carol"),
        copy(9, after=3),
    )
    removed(partition, 3, "@bob")
    assert seqs(reader, "@bob") == [3, 4], "carol has not got it"
    partition.confirm([("@bob", 3)])
    partition.append([], NOW_MS)
    removed(partition, 3, "@bob")
    assert seqs(reader, "@bob") == [4]
    assert [unpack_entry(packed).seq for packed in reader.controls("@bob")] == [1]
    assert reader.has_written("@bob", "carol")
    page = reader.read_direct("@bob", "alice", 10**6, 10, PAGE_BYTES)
    assert [seq for seq, _ in page.rows] == [4]
    die(partition)
    partition = open_partition(tmp_path)
    assert type(one(partition, copy(3))) is Repeated
    removed(partition, 4, "@bob", controls=1)
    assert reader.controls("@bob") == []


async def test_bodies_are_nowhere_in_the_files(tmp_path: Path) -> None:
    """After the checkpoint that is due then: main file, free pages, WAL."""
    partition = open_partition(tmp_path)
    for first in range(1, 1500, 100):
        for log in ("lobby", "tea", "cake"):
            bodies = [
                b"secret %s %05d;" % (log.encode(), n) * (n % 500)
                for n in range(first, first + 100)
            ]
            append(partition, *(message(first + i, body, log=log) for i, body in enumerate(bodies)))
    assert removed(partition, 1200) > 1200 // ROWS_PER_STEP, "large ones take more steps"
    removed(partition, 900, "tea")
    checkpointer = Checkpointer(partition, asyncio.to_thread)
    await checkpointer.run()
    found = set().union(*leftovers(tmp_path, rb"secret [a-z]+ \d{5};").values())
    for name, last in ((b"lobby", 1200), (b"tea", 900)):
        left = sorted(one for one in found if name in one)
        assert left[0] == b"secret %s %05d;" % (name, last + 1)
    assert b"secret cake 00001;" in found


def examined(tmp_path: Path) -> str | None:
    return examine(
        tmp_path / "00.sqlite",
        tmp_path / "00.lock",
        host=Host("boot 1", bytes),
        unpack=unpack_entry,
        partition=3,
        meaningless=lambda _: [],
    ).damage


def test_a_file_is_checked_compared_and_made_anew(tmp_path: Path) -> None:
    """Removed entries are no damage; a gap is; a rebuilt file begins where it began."""
    partition = open_partition(tmp_path)
    epoch = append(partition, *messages(1, 300))[0].epoch
    append(partition, message(1, log="tea"))
    removed(partition, 200)
    partition.close()
    path = tmp_path / "00.sqlite"
    [lobby, _] = read_logs(path)
    assert (lobby.head, lobby.entries) == (300, 100)
    packed = contents.packed_entries(path, lambda name: True, "lobby", still=True)
    assert [unpack_entry(one).seq for one in packed] == list(range(201, 301))
    assert "partition" in (examined(tmp_path) or "")  # the logs belong to others; nothing else
    aside: list[bytes] = []
    for number, broken in enumerate((False, True)):
        if broken:
            connection = apsw.Connection(str(path))
            connection.execute("DELETE FROM log")
            connection.close()
        new = tmp_path / f"new-{number}"
        new.mkdir()
        monkey = pytest.MonkeyPatch()
        monkey.setattr("relay.store.row_versions.partition_of", lambda _: 3)
        found = salvage(
            path, new / "00.sqlite", partition=3, unpack=unpack_entry, pack=pack_entry,
            with_wal=False,
            aside=aside.append,
        )  # fmt: skip
        monkey.undo()
        assert found == [SalvagedLog("lobby", 100, 0, 0), SalvagedLog("tea", 1, 0, 0)]
        again = open_partition(new)
        reader = RemovalReader(new / "00.sqlite", MessageCounter(unpack_entry))
        assert seqs(reader) == list(range(201, 301))
        assert type(one(again, message(7))) is Repeated
        assert one(again, message(7, b"else")) == IdConflict(7)
        assert append(again, message(301))[0].seq == 301
        gap = reader.resume(LOG, Cursor(epoch, 100), reader.head(LOG)).gap
        assert gap is not None
        assert gap.reason == GapReason.RETENTION
        again.close()
    assert not aside


# --- how much is kept -----------------------------------------------------------------------------
def bound(keep: RetentionLimits, *, head: int = 1000, now_ms: int = 10**9) -> Excess:
    """A log with an entry each second, of one byte each."""
    return upto(
        keep,
        Measured(0, head),
        now_ms=now_ms,
        grace_ms=5000,
        time_of=lambda seq: 10**9 - (1000 - seq) * 1000,
        older=lambda most: (max(0, head - most), True),
        end_of_excess=lambda most: max(0, head - most),
    )


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (RetentionLimits(), 0),
        (RetentionLimits(messages=400), 600),
        (RetentionLimits(messages=2000), 0),
        (RetentionLimits(bytes=300), 700),
        (RetentionLimits(messages=400, bytes=300), 700),
        (
            RetentionLimits(messages=1),
            994,
        ),  # those of the last five seconds are under way to readers
        (RetentionLimits(age_s=950), 49),
        (RetentionLimits(age_s=500), AT_ONCE),  # a tenth in one pass
    ],
)
def test_how_much_is_kept(keep: RetentionLimits, expected: int) -> None:
    assert bound(keep) == Excess(expected, expected == AT_ONCE)


def test_a_clock_that_jumps_removes_a_tenth_in_one_pass() -> None:
    year_ms = 365 * 86_400_000
    assert bound(RetentionLimits(age_s=86_400), now_ms=10**9 + year_ms) == Excess(AT_ONCE, True)
    many = bound(RetentionLimits(age_s=86_400), head=100_000, now_ms=10**9 + year_ms)
    assert many == Excess(10_000, True)
    last = bound(RetentionLimits(age_s=1), head=1, now_ms=10**9 + year_ms)
    assert last == Excess(0), "the last one stays"


def test_a_clock_set_back_lifts_no_limit_by_count_or_size() -> None:
    """Times of a log never go back, so those of all its later entries show no age."""
    earlier_ms = 10**9 - 365 * 86_400_000
    for limited in (RetentionLimits(messages=400), RetentionLimits(bytes=400)):
        assert bound(limited, now_ms=earlier_ms) == Excess(600, undated=True)
    one = bound(RetentionLimits(messages=1), now_ms=earlier_ms)
    assert one == Excess(999, undated=True), "the last one stays"
    assert bound(RetentionLimits(age_s=1), now_ms=earlier_ms).upto == 0
    partly = bound(RetentionLimits(age_s=86_400), head=10**6, now_ms=10**9)  # the newest are ahead
    assert partly.undated
    assert partly.upto == 0


def test_the_stricter_of_two() -> None:
    assert stricter(RetentionLimits(0, 5, 7), RetentionLimits(3, 4, 0)) == (3, 4, 7)


def test_what_a_log_is_measured_by(tmp_path: Path, reader: RemovalReader) -> None:
    """By the store's own times and sizes."""
    partition = open_partition(tmp_path)
    for n in range(1, 2001):
        partition.append([message(n, b"x" * 1000)], NOW_MS + n * 1000)
    now_ms = NOW_MS + 2_001_000
    assert reader.removable(LOG, RetentionLimits(messages=500), now_ms, 0).upto == 1500
    assert reader.removable(LOG, RetentionLimits(age_s=1950), now_ms, 0).upto == 50
    size = len(reader.read_back(LOG, 2001, 1, PAGE_BYTES).rows[0][1])
    assert reader.removable(
        LOG, RetentionLimits(bytes=size * 300 + 5), now_ms, 0
    ).upto == pytest.approx(1700, abs=2)
    assert reader.removable("elsewhere", RetentionLimits(messages=1), now_ms, 0).upto == 0


def test_erased_messages_make_room_for_older_ones(tmp_path: Path, reader: RemovalReader) -> None:
    """Older messages that were not removed yet when they were counted."""
    partition = open_partition(tmp_path)
    places = append(partition, *(offer(n, Kind.MESSAGE, b"x", log=LOG) for n in range(1, 21)))
    assert reader.removable(LOG, RetentionLimits(messages=5), NOW_MS + 10**6, 0).upto == 15
    append(partition, offer(21, Kind.REDACTION, b"", places[15], log=LOG))
    append(partition, offer(22, Kind.REDACTION, b"", places[17], log=LOG))
    assert reader.removable(LOG, RetentionLimits(messages=5), NOW_MS + 10**6, 0).upto == 13
    partition.close()


def test_messages_are_counted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written and removed meanwhile, and however little is read at a time."""
    monkeypatch.setattr(message_counter, "ENTRIES_LEAST", 60)
    partition = open_partition(tmp_path)
    chosen = random.Random(20)
    counted, counters = MessageCounter(unpack_entry), itertools.count(2)
    first = append(partition, offer(1, Kind.MESSAGE, b"first", log=LOG))[0]
    living, floor = [first], 0
    for turn in range(400):
        most = chosen.choice((1, 5, 5, 5, 8))
        kind = Kind.MESSAGE if chosen.random() < (0.7, 0.05)[turn // 100 % 2] else Kind.REACTION
        about = None if kind is Kind.MESSAGE else first
        [written] = append(partition, offer(next(counters), kind, b"x", about, log=LOG))
        if kind is Kind.MESSAGE:
            first = written
            living.append(written)
        living = [place for place in living if place.seq > floor]
        while len(living) > 1 and chosen.random() < 0.3:
            gone = living.pop(chosen.randrange(len(living) - 1))
            append(partition, offer(next(counters), Kind.REDACTION, b"", gone, log=LOG))
        monkeypatch.setattr(message_counter, "ENTRIES_PER_STEP", chosen.choice((1, 3, 1000)))
        for _ in range(1000):
            with contextlib.closing(RemovalReader(tmp_path / "00.sqlite", counted)) as reader:
                excess = reader.removable(LOG, RetentionLimits(messages=most), NOW_MS + 10**6, 0)
                kept = reader.read(LOG, reader.floor(LOG), 10**6, 10**9).rows
            if excess.counted:
                break
        stay = [row for row in kept if row[0] > excess.upto]
        many = len(kept) > max(60, most * message_counter.ENTRIES_PER_MESSAGE)
        expected = min(most, sum(unpack_entry(packed).kind == Kind.MESSAGE for _, packed in kept))
        found = sum(unpack_entry(packed).kind == Kind.MESSAGE for _, packed in stay)
        assert found == expected or (found < expected and many), turn
        assert len(stay) <= max(60, most * message_counter.ENTRIES_PER_MESSAGE)
        last = chosen.choice((0, 0, 0, 0, excess.upto, excess.upto, kept[-1][0] - 3))
        removed(partition, last)
        floor = max(floor, last)
        if last >= first.seq:
            first = append(partition, offer(next(counters), Kind.MESSAGE, b"x", log=LOG))[0]
            living.append(first)
    partition.close()
