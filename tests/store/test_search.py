"""The search index: which words are found, which not any more, and that it follows in any case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.chat.entries import Extra, Kind
from relay.store.file.schema import rows
from relay.store.log import Stored
from relay.store.search import files, finder, follower
from relay.store.search.finder import Finder, Found
from relay.store.search.follower import Follower
from relay.store.search.words import WORDS_MAX, match_of
from relay.store.touched import Touched
from relay.wire.packing import unpack_entry
from tests.support.logs import append, die, message, open_partition

TOP = 2**40


class Indexed:
    """A partition with its index, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "00.search"
        self.partition = open_partition(directory)
        self._follow()
        self.finder = Finder(self.path)
        self._counters: dict[str, int] = {}

    def _follow(self) -> None:
        self.partition.touched = self.touched = touched = Touched()
        self.follower = Follower(self.partition.path, self.path, touched, unpack_entry)

    def append(
        self,
        text: str,
        log: str = "lobby",
        *,
        kind: Kind = Kind.MESSAGE,
        about: Stored | None = None,
        content_type: str = "text/plain",
    ) -> Stored:
        counter = self._counters[log] = self._counters.get(log, 0) + 1
        place = (b"", 0) if about is None else (about.epoch, about.seq)
        extra = Extra(about_epoch=place[0], about_seq=place[1], verdict=0)
        one = message(counter, text.encode(), log=log)
        [stored] = append(
            self.partition,
            one._replace(kind=int(kind), content_type=content_type, extra=extra),
        )
        return stored

    def follow(self) -> None:
        """Until nothing is left to do."""
        while self.follower.behind:
            self.follower.run(1.0)

    def found(self, typed: str, log: str = "lobby") -> list[int]:
        self.follow()
        return self.look(typed, log).seqs

    def look(self, typed: str, log: str = "lobby", before: int = TOP, count: int = 50) -> Found:
        return self.finder.find(log, match_of(typed), 0, before, count)

    def bytes(self) -> bytes:
        """Return the content of the index's files."""
        return b"".join(each.read_bytes() for each in self.directory.glob("00.search*"))

    def reopen(self) -> None:
        """A new home, with the files of the previous one."""
        self.follower.close()
        die(self.partition)
        self.partition = open_partition(self.directory)
        self._follow()

    def close(self) -> None:
        self.finder.close()
        self.follower.close()
        self.partition.close()


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[Indexed]:
    made = Indexed(tmp_path)
    yield made
    made.close()


def test_a_partition_without_logs_gets_no_index(indexed: Indexed) -> None:
    assert indexed.found("tea") == []
    assert indexed.bytes() == b""
    assert not indexed.follower.behind
    indexed.append("tea")
    assert indexed.found("tea") == [1]


def test_the_index_of_a_partition_that_has_lost_its_logs_is_emptied(indexed: Indexed) -> None:
    indexed.append("tea")
    assert indexed.found("tea") == [1]
    indexed.follower.close()
    indexed.partition.close()
    for path in indexed.directory.glob("00.[ls]*"):
        if not path.name.startswith("00.search"):
            path.unlink()
    indexed.partition = open_partition(indexed.directory)
    indexed._follow()
    assert indexed.found("tea") == []
    assert b"tea" not in indexed.bytes()


# --- what is typed --------------------------------------------------------------------------------
def test_words_are_found_newest_first(indexed: Indexed) -> None:
    """All of them, in any order, whatever their case and accents; a phrase word by word."""
    indexed.append("Tea and biscuits at four")
    indexed.append("biscuits without TEA")
    indexed.append("Über den Wolken")
    indexed.append("tea", "kitchen")
    assert indexed.found("tea") == [2, 1]
    assert indexed.found("biscuits tea") == [2, 1]
    assert indexed.found('"tea and biscuits"') == [1]
    assert indexed.found("uber wolken") == [3]
    assert indexed.found("coffee") == []
    assert indexed.found("bisc") == []
    assert indexed.found("tea", "kitchen") == [1]
    assert indexed.found("tea", "nowhere") == []


def test_scripts_without_spaces_and_emoji_have_words(indexed: Indexed) -> None:
    """A part of a sentence is found; its characters in other places are not."""
    indexed.append("你好世界,今天天气很好")
    indexed.append("コーヒーは四時です")
    indexed.append("tea at four🫖🎉 ❤️")
    indexed.append("שלום עולם, 한국어 메시지")
    for typed, seq in (("天气", 1), ("世界 今天", 1), ("コーヒー", 2), ("四時", 2), ("🫖", 3)):
        assert indexed.found(typed) == [seq], typed
    for typed, seq in (("four", 3), ("🎉 tea", 3), ("❤️", 3), ("❤", 3), ("עולם", 4), ("한국어", 4)):
        assert indexed.found(typed) == [seq], typed
    for typed in ("气天", "世今", "時四", "🍵", "한국", "1f389"):
        assert indexed.found(typed) == [], typed
    assert indexed.found('"今天天气"') == [1]


@pytest.mark.parametrize(
    "typed",
    ['"', '""', "OR", "tea OR", "NEAR(tea 5)", "tea*", "-tea", "body:tea", "te'a; DROP TABLE",
     "^tea", "{a b}:c", "a" * 256, "\0", "tea\0x", '"half a phrase', "( ", "é\u0301",
     "🫖", "日本語"],
)  # fmt: skip
def test_whatever_is_typed_is_words(indexed: Indexed, typed: str) -> None:
    indexed.append("tea")
    indexed.follow()
    if match_of(typed):
        indexed.look(typed)
    else:
        assert not any(char.isalnum() or char == "🫖" for char in typed)


@given(typed=st.text(max_size=64))
def test_no_text_is_a_malformed_query(typed: str) -> None:
    match = match_of(typed)
    if match:
        memory = apsw.Connection(":memory:")
        memory.execute(files.TABLES)
        memory.execute("SELECT rowid FROM text WHERE text MATCH ?", (match,)).fetchall()
        memory.close()


def test_a_query_has_a_bounded_number_of_words() -> None:
    assert match_of(" ".join("abcdefghijklmnopqrstuvwxyz")).count('"') == 2 * WORDS_MAX
    assert match_of("!!! ,,, ...") == ""


def test_only_what_people_read_is_found(indexed: Indexed) -> None:
    indexed.append("tea", content_type="application/json")
    indexed.append("tea", content_type="text/plain; charset=utf-8")
    indexed.append("tea", content_type="")
    assert indexed.found("tea") == [2]


# --- edits and erasures ---------------------------------------------------------------------------
def test_an_edit_takes_the_place_of_what_was_said(indexed: Indexed) -> None:
    first = indexed.append("a kettle")
    indexed.follow()
    indexed.append("a teapot", kind=Kind.EDIT, about=first)
    assert indexed.found("kettle") == []
    assert indexed.found("teapot") == [first.seq]
    second = indexed.append("a mug", kind=Kind.EDIT, about=first)
    assert indexed.found("teapot") == []
    assert indexed.found("mug") == [first.seq]
    indexed.append(
        "", kind=Kind.REDACTION, about=second
    )  # of the edit alone: the previous text counts
    assert indexed.found("mug") == []
    assert indexed.found("teapot") == [first.seq]


def test_an_edit_does_not_have_those_before_read_again(indexed: Indexed) -> None:
    """However many there are, one is read besides the message."""
    first = indexed.append("a kettle")
    for n in range(20):
        indexed.append(f"mug {n}", kind=Kind.EDIT, about=first)
    indexed.follow()
    partition, read = indexed.follower._partition, []
    assert partition is not None
    partition.row_trace = lambda _, row: read.append(row) or row  # type: ignore[func-returns-value]
    indexed.append("a mug", kind=Kind.EDIT, about=first)
    assert indexed.found("mug") == [first.seq]
    assert "a mug" in repr(read[-1])
    assert not [row for row in read if "mug 19" in repr(row)]


@pytest.mark.parametrize("followed", [True, False], ids=["at once", "later"])
def test_what_was_erased_is_in_no_byte_of_the_index(indexed: Indexed, followed: bool) -> None:
    """In neither its file nor its WAL, neither the text nor its words, nor those of its edits."""
    keep = indexed.append("marzipan")
    gone = indexed.append("xylophone zzyzx")
    if followed:
        indexed.follow()
    indexed.append("quokka wombat", kind=Kind.EDIT, about=gone)
    if followed:
        assert indexed.found("wombat") == [gone.seq]
        assert b"wombat" in indexed.bytes()
    indexed.append("", kind=Kind.REDACTION, about=gone)
    for word in ("xylophone", "zzyzx", "quokka", "wombat"):
        assert indexed.found(word) == []
        assert word.encode() not in indexed.bytes()
    assert indexed.found("marzipan") == [keep.seq]
    assert b"marzipan" in indexed.bytes()


def test_erased_among_many_and_while_somebody_reads(indexed: Indexed) -> None:
    """A reader prevents emptying the WAL: it is emptied when the reader has ended."""
    entries = [indexed.append(f"word{n} common text of some length") for n in range(600)]
    indexed.follow()
    connection = apsw.Connection(str(indexed.path))
    reading = connection.execute("SELECT * FROM text")
    next(reading)
    for one in entries[::7]:
        indexed.append("", kind=Kind.REDACTION, about=one)
    indexed.follower.run(1.0)
    reading.close(True)
    connection.close()
    assert indexed.found("common")[:3] == [600, 599, 598]
    assert indexed.found("word7") == []
    content = indexed.bytes()
    assert b"word8 " in content
    assert not [n for n in range(0, 600, 7) if f"word{n} ".encode() in content]


@pytest.mark.parametrize(
    "removal",
    [
        "DELETE FROM entry WHERE id & 0xFFFFFFFFFF <= 600",
        "UPDATE entry SET packed=x'ff00112233' WHERE id & 0xFFFFFFFFFF <= 600",
    ],
    ids=["gone", "without what they said"],
)
@pytest.mark.parametrize("followed", [True, False], ids=["before", "after"])
def test_removed_entries_are_removed_of_the_index(
    indexed: Indexed, removal: str, followed: bool
) -> None:
    """As retention does: the floor of the log is raised, and there is no entry below it."""
    for n in range(700):
        indexed.append(f"old{n} tea")
    if followed:
        indexed.follow()
    connection = apsw.Connection(str(indexed.partition.path))
    connection.execute(removal)
    connection.execute("UPDATE log SET floor = 600")
    connection.close()
    indexed.follower.look()
    assert indexed.found("tea")[-1] == 700 - 49
    assert indexed.found("old600") == [601]
    assert indexed.found("old599") == []
    assert b"old599 " not in indexed.bytes()


# --- following ------------------------------------------------------------------------------------
def test_it_goes_on_where_it_was(indexed: Indexed) -> None:
    for n in range(20):
        indexed.append(f"tea {n}", f"room-{n % 3}")
    indexed.follow()
    assert indexed.follower.entries == 20
    indexed.append("tea again")
    indexed.reopen()
    assert indexed.found("tea again") == [1]
    assert indexed.follower.entries == 1  # no other entry was read again


def test_a_commit_that_is_lost_is_made_again(indexed: Indexed, tmp_path: Path) -> None:
    """Killed in the middle: what was not committed is read once more, and not found twice."""
    for n in range(3 * follower.ENTRIES_PER_STEP):
        indexed.append(f"tea {n}")
    index = files.open_writer(indexed.path)
    partition = apsw.Connection(str(indexed.partition.path))
    index.execute("BEGIN IMMEDIATE")
    indexed.follower._step(index, partition)
    [(first,)] = index.execute("SELECT count(*) FROM text").fetchall()
    assert first == follower.ENTRIES_PER_STEP
    index.close(True)  # no COMMIT
    partition.close()
    indexed.reopen()
    assert len(indexed.found("tea")) == 50
    assert indexed.look("tea", before=6).seqs == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("sizes", "read"),
    [([10] * 300, [256, 44]), ([8000] * 20, [16, 4]), ([10] * 250 + [32_000] * 8, [253, 4, 1])],
)
def test_a_step_is_bounded_by_bytes(indexed: Indexed, sizes: list[int], read: list[int]) -> None:
    """Many short messages at a time, and few long ones: a step's messages are in memory."""
    for size in sizes:
        indexed.append("tea " + "z" * size)
    index = files.open_writer(indexed.path)
    partition = apsw.Connection(str(indexed.partition.path))
    index.execute("BEGIN IMMEDIATE")
    for count in read:
        before = indexed.follower.entries
        indexed.follower._step(index, partition)
        assert indexed.follower.entries - before == count
    index.close(True)
    partition.close()


def test_a_slice_whose_time_ends_with_its_last_step(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know that nothing is left: the next one finds out."""
    indexed.append("tea")
    indexed.follow()
    indexed.append("more tea")
    times = iter([0.0, 0.0, 2.0])  # its begin, and before each step
    with monkeypatch.context() as patched:
        patched.setattr(follower, "time", SimpleNamespace(monotonic=lambda: next(times)))
        indexed.follower.run(1.0)
    assert list(times) == [], "one step"
    assert indexed.follower.behind
    indexed.follower.run(1.0)
    assert not indexed.follower.behind
    assert indexed.found("tea") == [2, 1]


def test_changes_of_accounts_alone_can_wait(indexed: Indexed) -> None:
    """Nothing can be found in them. Whatever else a log has is not kept waiting by them."""
    touched = indexed.touched
    indexed.append("", "@alice", kind=Kind.SYSTEM)
    assert (len(touched.soon), len(touched.later)) == (0, 1)
    indexed.follower.run(1.0)
    assert not touched.some, "a slice takes them as well"

    indexed.append("", "lobby", kind=Kind.SYSTEM)
    assert (len(touched.soon), len(touched.later)) == (1, 0), "a search tells of a room's end"
    indexed.follower.run(1.0)
    indexed.append("tea", "@alice")
    assert (len(touched.soon), len(touched.later)) == (1, 0)
    assert indexed.found("tea", "@alice") == [2]

    system = message(4, log="@alice")._replace(kind=int(Kind.SYSTEM))
    append(indexed.partition, message(3, b"more tea", log="@alice"), system)
    assert len(touched.soon) == 1, "one commit with a message as well"
    assert indexed.found("tea", "@alice") == [3, 2]


def test_two_homes_at_once_do_no_harm(indexed: Indexed) -> None:
    """The previous one may not have ended: each entry is in the index once."""
    touched = Touched()
    other = Follower(indexed.partition.path, indexed.path, touched, unpack_entry)
    for n in range(100):
        indexed.append(f"tea {n}")
        indexed.follower.run(1.0)
        touched.soon.add(1)
        other.run(1.0)
    assert len(indexed.look("tea", count=100).seqs) == 100
    other.close()


def test_a_log_that_is_another_one_is_read_anew(indexed: Indexed) -> None:
    """The partition lost its end, or was restored: the same numbers are other messages."""
    for n in range(10):
        indexed.append(f"before {n}")
    indexed.follow()
    indexed.follower.close()
    indexed.partition.close()
    for each in indexed.directory.glob("00.sqlite*"):
        each.unlink()
    (indexed.directory / "00.lock").unlink()
    indexed.partition = open_partition(indexed.directory)
    indexed._follow()
    indexed._counters.clear()
    for n in range(20):
        indexed.append(f"after {n}")
    assert indexed.found("before") == []
    assert indexed.found("after") == list(range(20, 0, -1))
    assert b"before" not in indexed.bytes()


def test_a_log_that_has_lost_its_end_is_read_anew(indexed: Indexed) -> None:
    """Under durability "process" a power cut may do that, and the index may have kept it."""
    for n in range(10):
        indexed.append(f"lost {n}")
    indexed.follow()
    indexed.follower.close()
    indexed.partition.close()
    connection = apsw.Connection(str(indexed.partition.path))
    connection.execute("DELETE FROM entry WHERE id & 0xFFFFFFFFFF > 5")
    connection.execute("UPDATE producer SET counter = 5, seq = 5")
    connection.close()
    indexed.partition = open_partition(indexed.directory)
    indexed._follow()
    assert indexed.found("lost") == [5, 4, 3, 2, 1]
    indexed._counters["lobby"] = 5
    assert indexed.append("new words").seq == 6
    assert indexed.found("words") == [6]


@pytest.mark.parametrize("damage", [b"no SQLite file at all", b""], ids=["foreign", "empty"])
def test_a_damaged_index_is_made_anew(indexed: Indexed, damage: bytes) -> None:
    indexed.append("tea")
    indexed.follow()
    indexed.follower.close()
    indexed.path.write_bytes(damage * 1000)
    indexed._follow()  # as the next start does
    assert indexed.found("tea") == [1]


def test_made_anew_by_command(indexed: Indexed) -> None:
    indexed.append("tea")
    indexed.follow()
    before = indexed.path.stat().st_ino
    indexed.look("tea")  # the reader has the old file
    indexed.follower.anew()
    assert not indexed.path.exists()
    assert indexed.found("tea") == [1]
    assert indexed.path.stat().st_ino != before or indexed.follower.entries == 2


def test_an_error_of_the_disk_waits_and_goes_on(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed.append("tea")
    indexed.follow()

    def full(*_: object) -> None:
        raise apsw.FullError("the disk is full, just now")

    with monkeypatch.context() as patch:
        patch.setattr(Follower, "_read", full)
        indexed.append("more tea")
        indexed.follower.run(1.0)
        assert indexed.look("tea").seqs == [1]
    indexed.follower.run(1.0)
    assert indexed.look("tea").seqs == [1]  # it does not try again at once
    monkeypatch.setattr(follower, "RETRY_S", 0.0)
    indexed.follower._resting_until = 0.0
    assert indexed.found("tea") == [2, 1]


# --- pages ----------------------------------------------------------------------------------------
def test_pages_newest_first_have_everything_once(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "WINDOW", 7)
    for n in range(100):
        indexed.append("tea" if n % 3 else "coffee")
    indexed.follow()
    seen: list[int] = []
    before, end = TOP, False
    while not end:
        page = indexed.look("tea", before=before, count=10)
        assert page.indexed == 100
        assert len(page.seqs) <= 10
        assert page.next < before
        seen += page.seqs
        before, end = page.next, page.end
    assert seen == [n + 1 for n in reversed(range(100)) if n % 3]


def test_an_entry_that_is_damaged_is_skipped(
    indexed: Indexed, caplog: pytest.LogCaptureFixture
) -> None:
    """And logged, once; others of the log and of the partition are found, also after a restart."""
    indexed.append("tea")
    assert indexed.found("tea") == [1]
    indexed.append("tea")
    other = apsw.Connection(str(indexed.partition.path))
    try:
        [[row, packed]] = rows(other, "SELECT max(id), packed FROM entry")
        change = "UPDATE entry SET packed=? WHERE id=?"
        other.execute(change, (packed[:9], row))
        indexed.append("more tea")
        assert indexed.found("tea") == [3, 1]
        indexed.follower.close()
        indexed._follow()
        assert indexed.found("tea") == [3, 1]
        assert caplog.text.count("search_entry_skipped") == 1
        other.execute(change, (packed, row))
    finally:
        other.close()
    indexed.follower.anew()
    assert indexed.found("tea") == [3, 2, 1]


def test_a_search_that_takes_long_says_how_far_it_came(
    indexed: Indexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "WINDOW", 7)
    monkeypatch.setattr(finder, "SLICE_S", 0.0)
    for _ in range(20):
        indexed.append("tea")
    indexed.follow()
    page = indexed.look("coffee")
    assert (page.seqs, page.next, page.end) == ([], 14, False)
    pages = 1
    while not page.end:
        page = indexed.look("coffee", before=page.next)
        pages += 1
    assert pages == 3


def test_nothing_outside_of_the_bounds(indexed: Indexed) -> None:
    for _ in range(10):
        indexed.append("tea")
    indexed.follow()
    assert indexed.finder.find("lobby", '"tea"', 3, 8, 50) == Found([7, 6, 5, 4], 4, True, 10)
    assert indexed.finder.find("lobby", '"tea"', 10, 11, 50).end


def test_without_an_index_nothing_is_found(tmp_path: Path) -> None:
    finder_ = Finder(tmp_path / "none")
    assert finder_.find("lobby", '"tea"', 0, TOP, 10) == Found([], 0, True, 0)
    (tmp_path / "none").touch()
    assert finder_.find("lobby", '"tea"', 0, TOP, 10) == Found([], 0, True, 0)
    finder_.close()
