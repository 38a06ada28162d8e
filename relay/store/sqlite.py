"""The writer of one partition: group commits into SQLite in WAL mode.

In-memory heads and de-duplication change only after COMMIT returned (rule 2); on any error but a full
disk the connection is dropped with all that is remembered, and rebuilt from the file (rule 15).
"""

from __future__ import annotations

import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import apsw

from relay.chat.entries import NO_EPOCH, Entry, Head, Submission
from relay.store.errors import NotTheWriter, StoreError, StoreUnavailable
from relay.store.log import Expected, IdConflict, Outcome, Repeated, Stored, UnknownOutcome
from relay.store.schema import SEQ_BITS, check_sqlite, connect, create_tables, row_id, translated

DAY_MS: Final = 86_400_000
PRODUCER_DAYS: Final = 30
PRODUCERS_DROPPED_MAX: Final = 100
"""Per pass, so that no pass is felt (rule 18)."""
PASS_MS: Final = 60_000
REPEATS_WINDOW: Final = 4096
"""How far back a repeated counter's original is looked for; beyond it the answer's seq is 0."""
LOGS_CACHED_MAX: Final = 20_000
PRODUCERS_CACHED_MAX: Final = 20_000
WALKS_CACHED_MAX: Final = 64

Durability = Literal["process", "power"]
Pack = Callable[[Entry], bytes]
UnpackContent = Callable[[bytes], tuple[int, str, bytes]]
ProducerKey = tuple[int, bytes]


@dataclass(slots=True)
class _Log:
    """The committed end of one log."""

    id: int
    epoch: bytes
    seq: int
    time_ms: int
    generation: int


@dataclass(frozen=True, slots=True)
class Host:
    """What the store needs to know of the machine it runs on."""

    boot_id: str
    random_bytes: Callable[[int], bytes]


class SqlitePartition:
    """See ``log.Partition``."""

    def __init__(
        self,
        path: Path,
        lock_path: Path,
        *,
        host: Host,
        durability: Durability,
        pack: Pack,
        unpack_content: UnpackContent,
    ) -> None:
        """Take the partition's lock and open its file.

        Raises:
            NotTheWriter: another process holds the lock.
            StoreError: the file cannot be opened.
        """
        check_sqlite()
        self._path = path
        self._host = host
        self._durability: Durability = durability
        self._pack = pack
        self._unpack_content = unpack_content
        self.held = False
        self.wal_pages = 0
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._producers: OrderedDict[ProducerKey, tuple[int, int]] = OrderedDict()
        self._walks: OrderedDict[ProducerKey, dict[int, int]] = OrderedDict()
        self._generation = 0
        self._day = 0
        self._day_began_ms = 0
        self._pass_due_ms = 0
        self._connection: apsw.Connection | None = None
        self._lock_fd = _lock(lock_path)
        try:
            self._opened()
        except StoreError:
            os.close(self._lock_fd)
            raise

    # --- opening and closing -----------------------------------------------------------------------
    def _opened(self) -> apsw.Connection:
        if self._connection is None:
            connection = connect(self._path, create=True)
            try:
                synchronous = "NORMAL" if self._durability == "process" else "FULL"
                connection.execute(f"PRAGMA synchronous={synchronous}")
                connection.execute("BEGIN IMMEDIATE")
                create_tables(connection)
                self._begin_generation(connection)
                connection.execute("COMMIT")
                connection.set_wal_hook(self._wal_grew)
            except apsw.Error as error:
                connection.close()
                raise translated(error, self._path) from error
            self._connection = connection
        return self._connection

    def _begin_generation(self, connection: apsw.Connection) -> None:
        """Rule 9: after a possible loss of commits, every log's next append begins a new epoch."""
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        inode = self._path.stat().st_ino
        survived = (
            meta.get("clean") == 1
            or meta.get("boot_id") == self._host.boot_id
            or self._durability == meta.get("durability") == "power"
        )
        # Another inode: a copy, such as a restored backup. Its past may not be what readers saw.
        same_file = meta.get("inode") == inode
        generation = int(str(meta.get("generation", 0)))
        if not (survived and same_file):
            generation += 1
        self._generation = generation
        self._day = int(str(meta.get("day", 0)))
        self._day_began_ms = int(str(meta.get("day_began_ms", 0)))
        _set_meta(
            connection,
            generation=generation,
            inode=inode,
            boot_id=self._host.boot_id,
            durability=self._durability,
            clean=0,
        )

    def _drop_connection(self) -> None:
        """Forget everything remembered: the file alone knows what was committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(True)
        self._logs.clear()
        self._producers.clear()
        self._walks.clear()

    def close(self) -> None:
        """Mark the partition clean and release its lock."""
        connection = self._connection
        if connection is not None:
            try:
                _set_meta(connection, clean=1)
            except apsw.Error:
                pass  # stays unclean: the next start takes no risk
            self._drop_connection()
        os.close(self._lock_fd)

    def _wal_grew(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    # --- reading ---------------------------------------------------------------------------------------
    def head(self, log: str) -> Head:
        """See ``log.Partition``."""
        try:
            state = self._log(self._opened(), log)
        except apsw.Error as error:
            self._drop_connection()
            raise translated(error, self._path) from error
        return Head(NO_EPOCH, 0) if state is None else Head(state.epoch, state.seq)

    def _log(self, connection: apsw.Connection, name: str) -> _Log | None:
        state = self._logs.get(name)
        if state is not None:
            return state
        rows = connection.execute("SELECT id, floor FROM log WHERE name=?", (name,)).fetchall()
        if not rows:
            return None
        log_id, floor = rows[0]
        last = connection.execute(
            "SELECT id, packed FROM entry WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
            (row_id(log_id, 1), row_id(log_id + 1, 0) - 1),
        ).fetchall()
        epoch, generation = connection.execute(
            "SELECT epoch, generation FROM epoch WHERE log_id=? ORDER BY first_seq DESC LIMIT 1",
            (log_id,),
        ).fetchall()[0]
        seq = last[0][0] & (1 << SEQ_BITS) - 1 if last else floor
        # The time of the last entry is not needed exactly: it only keeps time from going back, and
        # is read from the entry itself when there is one.
        time_ms = _time_of(connection, log_id)
        state = _Log(log_id, epoch, seq, time_ms, generation)
        self._remember_log(name, state)
        return state

    def _remember_log(self, name: str, state: _Log) -> None:
        self._logs[name] = state
        if len(self._logs) > LOGS_CACHED_MAX:
            self._logs.popitem(last=False)

    def _producer(
        self, connection: apsw.Connection, log_id: int, producer: bytes
    ) -> tuple[int, int] | None:
        key = (log_id, producer)
        known = self._producers.get(key)
        if known is None:
            rows = connection.execute(
                "SELECT counter, seq FROM producer WHERE log_id=? AND producer=?", key
            ).fetchall()
            if not rows:
                return None
            known = (rows[0][0], rows[0][1])
        return known

    # --- appending -----------------------------------------------------------------------------------
    def append(self, batch: list[Submission], now_ms: int) -> list[Outcome]:
        """See ``log.Partition``."""
        try:
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            group = _Group(self, connection, now_ms)
            outcomes = [group.offer(submission) for submission in batch]
            group.write()
            connection.execute("COMMIT")
        except apsw.FullError as error:
            self._roll_back()
            raise translated(error, self._path) from error
        except apsw.Error as error:
            self._drop_connection()
            raise translated(error, self._path) from error
        except BaseException:
            self._drop_connection()
            raise
        group.remember()
        return outcomes

    def _roll_back(self) -> None:
        """End the transaction of a full disk; SQLite may have done so by itself."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._drop_connection()


class _Group:
    """One group commit: what it would change, kept apart from what is committed."""

    def __init__(self, partition: SqlitePartition, connection: apsw.Connection, now_ms: int) -> None:
        self._partition = partition
        self._connection = connection
        self._now_ms = now_ms
        self._logs: dict[str, _Log] = {}
        self._producers: dict[ProducerKey, tuple[int, int]] = {}
        self._new_logs: list[tuple[int, str]] = []
        self._new_epochs: list[tuple[int, int, bytes, int]] = []
        self._rows: list[tuple[int, int, bytes]] = []
        self._staged: dict[int, tuple[int, bytes]] = {}

    def offer(self, submission: Submission) -> Outcome:
        """Decide about one submission (rule 1)."""
        state = self._log(submission.log)
        producer, counter = submission.producer, submission.counter
        key = (0 if state is None else state.id, producer)
        known = self._producers.get(key)
        if known is None and state is not None:
            known = self._partition._producer(self._connection, state.id, producer)
        if known is None:
            if counter != 1:
                return UnknownOutcome()
            last_seq = 0
        else:
            last, last_seq = known
            if counter <= last:
                assert state is not None
                return self._repeated(state, known, submission)
            if counter != last + 1:
                return Expected(last + 1)
        return self._append(submission, state or self._create(submission.log), last_seq)

    def _append(self, submission: Submission, state: _Log, chain: int) -> Stored:
        partition = self._partition
        log, producer, counter, sender, key_id, kind, content_type, body = submission
        prev = state.seq
        seq = prev + 1
        if state.generation != partition._generation:
            state.epoch = partition._host.random_bytes(8)
            state.generation = partition._generation
            self._new_epochs.append((state.id, seq, state.epoch, state.generation))
        state.seq = seq
        if self._now_ms > state.time_ms:
            state.time_ms = self._now_ms
        packed = partition._pack(
            Entry(
                log, state.epoch, seq, prev, state.time_ms, sender, key_id, producer, counter,
                kind, content_type, body,
            )
        )  # fmt: skip
        self._rows.append((state.id << SEQ_BITS | seq, chain, packed))
        self._producers[state.id, producer] = (counter, seq)
        return Stored(state.epoch, seq, prev, packed)

    def _log(self, name: str) -> _Log | None:
        state = self._logs.get(name)
        if state is None:
            committed = self._partition._log(self._connection, name)
            if committed is None:
                return None
            state = _Log(
                committed.id, committed.epoch, committed.seq, committed.time_ms,
                committed.generation,
            )  # fmt: skip
            self._logs[name] = state
        return state

    def _create(self, name: str) -> _Log:
        if self._new_logs:
            log_id = self._new_logs[-1][0] + 1
        else:
            rows = self._connection.execute("SELECT max(id) FROM log").fetchall()
            log_id = (rows[0][0] or 0) + 1
        self._new_logs.append((log_id, name))
        state = self._logs[name] = _Log(log_id, NO_EPOCH, 0, 0, -1)
        return state

    # --- repeats -----------------------------------------------------------------------------------
    def _repeated(self, state: _Log, last: tuple[int, int], submission: Submission) -> Outcome:
        seq = self._original_seq(state, last, submission)
        if seq == 0:
            return Repeated(state.epoch, 0)
        row = self._entry(row_id(state.id, seq))
        if row is None:
            return Repeated(state.epoch, 0)
        kind, content_type, body = self._partition._unpack_content(row[1])
        if (kind, content_type, body) != submission[5:8]:
            return IdConflict(seq)
        epochs = [e for e in self._new_epochs if e[0] == state.id and e[1] <= seq]
        if epochs:
            return Repeated(epochs[-1][2], seq)
        rows = self._connection.execute(
            "SELECT epoch FROM epoch WHERE log_id=? AND first_seq<=? "
            "ORDER BY first_seq DESC LIMIT 1",
            (state.id, seq),
        ).fetchall()
        return Repeated(rows[0][0], seq)

    def _original_seq(self, state: _Log, last: tuple[int, int], submission: Submission) -> int:
        """Walk the producer's chain back from its last entry; 0 when it is beyond the window."""
        counter = submission.counter
        if last[0] - counter >= REPEATS_WINDOW:
            return 0
        walks = self._partition._walks
        key = (state.id, submission.producer)
        walked = walks.get(key, {})
        if counter not in walked or last[0] not in walked:
            walked = {}
            at, seq = last
            while seq and at >= counter:
                walked[at] = seq
                row = self._entry(row_id(state.id, seq))
                at, seq = at - 1, 0 if row is None else row[0]
            walks[key] = walked
            if len(walks) > WALKS_CACHED_MAX:
                walks.popitem(last=False)
        return walked.get(counter, 0)

    def _entry(self, key: int) -> tuple[int, bytes] | None:
        """Return (chain, packed) of an entry, staged or committed."""
        if len(self._staged) != len(self._rows):
            self._staged = {row[0]: (row[1], row[2]) for row in self._rows}
        staged = self._staged.get(key)
        if staged is not None:
            return staged
        rows = self._connection.execute(
            "SELECT chain, packed FROM entry WHERE id=?", (key,)
        ).fetchall()
        return (rows[0][0], rows[0][1]) if rows else None

    # --- writing -----------------------------------------------------------------------------------
    def write(self) -> None:
        """Put the group into the open transaction."""
        execute_many = self._connection.executemany
        partition = self._partition
        self._keep_days()
        if self._new_logs:
            execute_many("INSERT INTO log (id, name, floor) VALUES (?, ?, 0)", self._new_logs)
        if self._new_epochs:
            execute_many("INSERT INTO epoch VALUES (?, ?, ?, ?)", self._new_epochs)
        if self._rows:
            execute_many("INSERT INTO entry VALUES (?, ?, ?)", self._rows)
            execute_many(
                "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)",
                [(*key, *value, partition._day) for key, value in self._producers.items()],
            )

    def _keep_days(self) -> None:
        """Count days, one at a time whatever the wall clock does, and drop producers unused for 30."""
        partition, now_ms = self._partition, self._now_ms
        if abs(now_ms - partition._pass_due_ms) < PASS_MS and now_ms < partition._pass_due_ms:
            return
        partition._pass_due_ms = now_ms + PASS_MS
        if now_ms < partition._day_began_ms or now_ms >= partition._day_began_ms + DAY_MS:
            partition._day += 1
            partition._day_began_ms = now_ms
            _set_meta(self._connection, day=partition._day, day_began_ms=now_ms)
        self._connection.execute(
            "DELETE FROM producer WHERE (log_id, producer) IN "
            "(SELECT log_id, producer FROM producer WHERE used_day < ? LIMIT ?)",
            (partition._day - PRODUCER_DAYS, PRODUCERS_DROPPED_MAX),
        )
        if self._connection.changes():
            partition._producers.clear()

    def remember(self) -> None:
        """After COMMIT: this is now the committed state."""
        partition = self._partition
        for name, state in self._logs.items():
            partition._remember_log(name, state)
        producers = partition._producers
        producers.update(self._producers)
        while len(producers) > PRODUCERS_CACHED_MAX:
            producers.popitem(last=False)


def _lock(path: Path) -> int:
    """Take the partition's lock; the kernel frees it when this process dies (rule 8)."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise NotTheWriter(f"{path} is locked by another process") from error
    return fd


def _set_meta(connection: apsw.Connection, **values: int | str) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))
