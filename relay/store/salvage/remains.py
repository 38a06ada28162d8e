"""Reads what is left in a damaged file: the rows of entries, and what other tables tell of them.

Everything in a file follows from its entries. Where one of them is lost, the tables that follow
from it are the only record: until where a log had come, which of its entries were control entries,
what the rights in a room are, who has sent an entry.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from relay.store.file.schema import pragma
from relay.store.file.still import open_still
from relay.store.reading.resume import Segment
from relay.store.salvage.carving import Row, carved
from relay.store.salvage.row_versions import Removal, RowVersions, Unpack
from relay.store.state import SEQ_MASK

ROW_MAX: Final = (1 << 63) - 1
DAMAGE: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.SQLError,
    apsw.IOError,
    UnicodeDecodeError,
)
_ROWS: Final = (
    "SELECT id, time_ms, chain, jump, CAST(packed AS BLOB) FROM entry WHERE id>=? ORDER BY id"
)


class Floor(NamedTuple):
    """Where a log begins."""

    name: str
    seq: int
    time_ms: int


class Producer(NamedTuple):
    """The record of a producer's last entry."""

    producer: bytes
    counter: int
    seq: int


class Known(NamedTuple):
    """What tables other than ``entry`` contain, by log id, as far as they can be read.

    A mark is written beside the entry that sets it, and stays when that is removed; so does the row
    of a direct message, by which a copy that was taken is recognised.
    """

    floors: dict[int, Floor]
    epochs: dict[int, list[Segment]]
    producers: dict[int, list[Producer]]
    controls: dict[int, set[int]]
    all_controls: bool
    """True if the whole table of control entries was read."""
    states: dict[int, bytes]
    folds: dict[int, tuple[int, bytes]]
    directs: dict[int, list[tuple[str, int, bytes, int]]]
    marks: dict[int, list[tuple[str, bytes, int]]]


class Remains(NamedTuple):
    """What is left."""

    rows: Callable[[], Iterator[Row]]
    """Yields the rows of entries, in order; to be called again for another pass."""
    known: Known
    removed: dict[int, Removal]
    """By log id, what other versions of the file have removed (``row_versions``)."""


@contextlib.contextmanager
def remains(path: Path, beside: Path, unpack: Unpack, *, with_wal: bool) -> Iterator[Remains]:
    """Read a file as far as possible, with its write-ahead log and without it.

    Rows found by SQLite come first: it knows which of two versions of a row is valid.
    ``row_versions`` tells what is taken of the others.

    Args:
        path: the damaged file. Nothing is written to it.
        beside: a temporary file for the rows, removed at the end.
        unpack: returns the entry of a row.
        with_wal: the file with its write-ahead log comes first, and the other tables are those of
            it; otherwise the file alone.
    """
    gathered = apsw.Connection(str(beside))
    try:
        for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
            pragma(gathered, setting)
        gathered.execute("BEGIN")
        versions = RowVersions(gathered)
        known = _gather(path, versions, with_wal=with_wal, first=True)
        _gather(path, versions, with_wal=not with_wal, first=False)
        versions.settle(unpack, lambda names: named(names, known.floors))
        gathered.execute("COMMIT")
        yield Remains(versions.rows, known, versions.removed)
    finally:
        gathered.close(True)
        beside.unlink(missing_ok=True)


def _gather(path: Path, versions: RowVersions, *, with_wal: bool, first: bool) -> Known:
    known = Known({}, {}, {}, {}, False, {}, {}, {}, {})
    with contextlib.suppress(*DAMAGE):
        source = _connect(path, with_wal)
        try:
            if first:
                known = _known(source)
            versions.add((row for row in _readable(source) if _is_row(row)), first=first)
        finally:
            source.close(True)
    with contextlib.suppress(OSError):
        versions.add(carved(path, with_wal=with_wal), first=first)
    return known


def named(names: Counter[tuple[int, str]], known: dict[int, Floor]) -> dict[int, str]:
    """Return the name of each log: that of most of its entries, or else that in the table.

    Args:
        names: number of entries by log id and name.
        known: the table.
    """
    found: dict[int, str] = {}
    taken: set[str] = set()
    for (log_id, name), _ in names.most_common():
        if log_id not in found and name not in taken:
            found[log_id] = name
            taken.add(name)
    for log_id, floor in known.items():
        if log_id not in found and floor.name not in taken:
            found[log_id] = floor.name
            taken.add(floor.name)
    return found


def _is_row(row: tuple[Any, ...]) -> bool:
    """Check the types of a row's columns: SQLite returns whatever a page contains."""
    *numbers, packed = row
    return _are(int, *numbers) and type(packed) is bytes


def _are(kind: type, *values: object) -> bool:
    return all(type(one) is kind for one in values)


def _connect(path: Path, with_wal: bool) -> apsw.Connection:
    if with_wal:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    return open_still(path)


def _known(source: apsw.Connection) -> Known:
    floors: dict[int, Floor] = {}
    epochs: dict[int, list[Segment]] = {}
    producers: dict[int, list[Producer]] = {}
    controls: dict[int, set[int]] = {}
    states: dict[int, bytes] = {}
    folds: dict[int, tuple[int, bytes]] = {}
    with contextlib.suppress(*DAMAGE):
        for log_id, name, seq, ms in source.execute("SELECT id, name, floor, floor_ms FROM log"):
            if _are(int, log_id, seq, ms) and type(name) is str and 0 <= seq <= SEQ_MASK:
                floors[log_id] = Floor(name, seq, ms)
    with contextlib.suppress(*DAMAGE):
        for log_id, seq, epoch in source.execute(
            "SELECT log_id, first_seq, epoch FROM epoch ORDER BY log_id, first_seq"
        ):
            if _are(int, log_id, seq) and type(epoch) is bytes:
                epochs.setdefault(log_id, []).append(Segment(seq, epoch))
    with contextlib.suppress(*DAMAGE):
        for log_id, producer, counter, seq in source.execute(
            "SELECT log_id, producer, counter, seq FROM producer"
        ):
            if _are(int, log_id, counter, seq) and type(producer) is bytes and counter > 0:
                producers.setdefault(log_id, []).append(Producer(producer, counter, seq))
    all_controls = False
    with contextlib.suppress(*DAMAGE):
        for log_id, seq in source.execute("SELECT log_id, seq FROM control"):
            if _are(int, log_id, seq):
                controls.setdefault(log_id, set()).add(seq)
        all_controls = True
    with contextlib.suppress(*DAMAGE):
        states |= {
            log_id: packed
            for log_id, packed in source.execute("SELECT log_id, CAST(packed AS BLOB) FROM state")
            if type(log_id) is int and type(packed) is bytes
        }
    with contextlib.suppress(*DAMAGE):
        folds |= {
            log_id: (seq, packed)
            for log_id, seq, packed in source.execute(
                "SELECT log_id, seq, CAST(packed AS BLOB) FROM fold"
            )
            if _are(int, log_id, seq) and type(packed) is bytes
        }
    directs: dict[int, list[tuple[str, int, bytes, int]]] = {}
    marks: dict[int, list[tuple[str, bytes, int]]] = {}
    with contextlib.suppress(*DAMAGE):
        for log_id, peer, seq, epoch, origin in source.execute(
            "SELECT log_id, peer, seq, epoch, origin FROM direct"
        ):
            if _are(int, log_id, seq, origin) and type(peer) is str and type(epoch) is bytes:
                directs.setdefault(log_id, []).append((peer, seq, epoch, origin))
    with contextlib.suppress(*DAMAGE):
        for log_id, about, epoch, seq in source.execute(
            "SELECT log_id, about, epoch, seq FROM mark"
        ):
            if _are(int, log_id, seq) and type(about) is str and type(epoch) is bytes:
                marks.setdefault(log_id, []).append((about, epoch, seq))
    return Known(floors, epochs, producers, controls, all_controls, states, folds, directs, marks)


def _readable(source: apsw.Connection) -> Iterator[Row]:
    """Yield the readable rows, in order, skipping unreadable pages."""
    at = 0
    while at <= ROW_MAX:
        try:
            for row in source.execute(_ROWS, (at,)):
                at = row[0] + 1
                yield row
        except DAMAGE:
            behind = _behind_damage(source, at)
            if behind is None:
                return
            at = behind
        else:
            return


def _behind_damage(source: apsw.Connection, at: int) -> int | None:
    """Return the first row id after ``at`` from which reading can continue; None: there is none."""
    step, bad = 1, at
    while not _can_read(source, good := at + step):
        bad, step = good, step * 2
        if at + step > ROW_MAX:
            return None
    while good - bad > 1:
        middle = (good + bad) // 2
        if _can_read(source, middle):
            good = middle
        else:
            bad = middle
    return good


def _can_read(source: apsw.Connection, at: int) -> bool:
    try:
        source.execute(f"{_ROWS} LIMIT 1", (at,)).fetchall()
    except DAMAGE:
        return False
    return True
