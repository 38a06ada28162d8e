"""A partition's file that is open for writing, and the data cached in memory.

Any failure here raises apsw.Error; the caller then rolls back or discards this object.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, final

import apsw

from relay.chat.entries import Entry, Kind, Submission
from relay.chat.repeats import pushed
from relay.store import apply
from relay.store.apply import ENTRY
from relay.store.committed import Committed
from relay.store.decide import Decision, Pack
from relay.store.derived import note_controls
from relay.store.errors import StoreUnavailable
from relay.store.file.generation import Durability
from relay.store.file.schema import is_full, pragma
from relay.store.log import Outcome, Removed, Stored
from relay.store.producers import ProducerExpiry
from relay.store.read_budget import ReadBudget
from relay.store.retention import removal
from relay.store.rules import Rules
from relay.store.state import SEQ_BITS, SEQ_MASK, Changes, Flush
from relay.store.touched import Touched
from relay.store.unflushed import Unflushed
from relay.store.view import load

Write = Callable[[apsw.Connection | apsw.Cursor, Changes, int], None]
"""As ``apply.write``."""
SYSTEM: Final = int(Kind.SYSTEM)
_NOTHING: Final = Flush()
_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""
CHECK_MS: Final = 1000
"""How often the path of an open file is checked."""


@final
class Opened:
    """State that belongs to a connection and is discarded with it."""

    __slots__ = (
        "_unpack", "_usual", "_write", "committed", "connection", "cursor", "expiry", "generation",
        "unflushed",
    )  # fmt: skip

    def __init__(
        self,
        connection: apsw.Connection,
        generation: int,
        unpack: Callable[[bytes], Entry],
        write: Write | None,
    ) -> None:
        """Read the initial state. Raises apsw.Error.

        Args:
            connection: of the partition's writer.
            generation: the file's.
            unpack: returns a packed entry.
            write: writes changes into the open transaction; None: ``apply.write``.
        """
        self.connection = connection
        self.cursor = connection.cursor()
        """For commits."""
        self.unflushed = Unflushed(connection, unpack)
        self.committed = Committed(connection, self.unflushed)
        self.expiry = ProducerExpiry(connection)
        self.generation = generation
        self._unpack = unpack
        self._write = write or apply.write
        self._usual = write is None

    def decide(
        self,
        batch: list[Submission],
        now_ms: int,
        budget: ReadBudget | None,
        *,
        pack: Pack,
        random_bytes: Callable[[int], bytes],
        logs_max: int,
        rules: Rules | None,
        waits: bool,
    ) -> tuple[list[Outcome], Changes, bool]:
        """Decide about a batch: (outcomes, changes, whether there are control entries among them).

        Raises apsw.Error.

        Args:
            batch: the submissions.
            now_ms: since 1970.
            budget: limits what is read.
            pack: as for ``Decision``; also the next three.
            random_bytes: see there.
            logs_max: see there.
            rules: see there.
            waits: all commits wait for the disk. Then unused producers are not dropped here, in the
                loop, but after the batch, where its commit is (``end``).
        """
        if not waits and self.expiry.due(now_ms):
            self._expire(now_ms)
        view = load(
            self.committed,
            batch,
            generation=self.generation,
            unpack_entry=self._unpack,
            budget=budget,
            rules=rules,
        )
        decision = Decision(
            view,
            now_ms=now_ms,
            pack=pack,
            random_bytes=random_bytes,
            logs_max=logs_max,
            rules=rules,
        )
        outcomes = decision.decide(batch)
        changes, controls = decision.changes, False
        if decision.special:
            controls = bool(changes.states) or any(one.kind == SYSTEM for one in batch)
            if controls:
                note_controls(batch, outcomes, changes)
        return outcomes, changes, controls

    def write(self, changes: Changes, *, forced: bool, apart: bool) -> None:
        """Write changes. ``end`` must follow: it commits them, unless this was one statement.

        Args:
            changes: the decided changes.
            forced: make this commit survive a power failure.
            apart: leave the commit to ``end`` in any case.
        """
        if changes.entries:
            self.unflushed.plan(changes)
        if changes.entries or changes.more is not None:
            cursor = self.cursor
            if not apart and apply.is_one_statement(changes):
                assert not forced, "what is forced writes more"
            else:
                if forced:
                    pragma(self.connection, "synchronous=FULL")
                cursor.execute("BEGIN IMMEDIATE")
            self._write(cursor, changes, self.expiry.day)

    def unfinished(self, now_ms: int) -> bool:
        """Return True if ``end`` has something to commit."""
        return self.connection.in_transaction or self.expiry.due(now_ms)

    def end(self, changes: Changes, *, forced: bool, now_ms: int) -> None:
        """Commit what was written, then update the caches. Drop unused producers if it is time.

        Args:
            changes: what was written.
            forced: as for ``write``.
            now_ms: since 1970.

        Raises:
            apsw.Error: something is not stored.
        """
        if self.connection.in_transaction:
            self.cursor.execute("COMMIT")
            if forced:
                pragma(self.connection, "synchronous=NORMAL")
        self.unflushed.apply(changes)
        self.committed.apply(changes)
        if self.expiry.due(now_ms):
            self._expire(now_ms)

    def roll_back(self, durability: Durability) -> None:
        """Undo what ``write`` has begun. Raises apsw.Error."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        if durability == "process":
            pragma(self.connection, "synchronous=NORMAL")  # undoes a forced commit's

    def append_lone(
        self,
        submission: Submission,
        now_ms: int,
        pack: Pack,
        touched: Touched | None,
        *,
        ruled: bool,
    ) -> Stored | None:
        """Store a single message, if there is nothing to decide or look up.

        It must be the next one of its producer, in a room without rules whose end is remembered,
        and its producer must stay in the tail (``unflushed``). This is a shortcut for ``Decision``,
        ``write`` and ``end``, whose views and changes would be nearly empty.

        Args:
            submission: the only one of the commit.
            now_ms: since 1970.
            pack: makes the bytes of the entry.
            touched: receives the id of the log; None: nobody asks for it.
            ruled: messages to ``guarded`` logs need a decision.

        Returns:
            None if the shortcut does not apply: then nothing was done.

        Raises:
            apsw.Error: it is not stored.
        """
        committed = self.committed
        name, counter = submission.log, submission.counter
        log = committed.logs.get(name)
        if (
            log is None
            or (ruled and log.guarded)
            or log.generation != self.generation
            or submission.kind
            or submission.extra is not None
            or not self._usual
        ):
            return None
        identity = submission.identity
        if identity and identity != log.epoch and identity != log.begun:
            return None  # another room of this name is meant, or it must be read which this one is
        key = name, submission.producer
        last = committed.producers.get(key)
        tail = self.unflushed.tail_with_room(log.id)
        prev = log.seq
        if last is None or counter != last[0] + 1 or tail is None or prev >= SEQ_MASK:
            return None
        seq, epoch = prev + 1, log.epoch
        time_ms = max(now_ms, log.time_ms)  # time in a log never goes back
        try:
            packed = pack((name, epoch, seq, prev, time_ms) + submission[1:8])  # noqa: RUF005
        except (ValueError, TypeError, OverflowError):
            return None  # deciding tells why
        chain, jump, stack = pushed(last[1], counter, seq)
        self.cursor.execute(ENTRY, (log.id << SEQ_BITS | seq, time_ms, chain, jump, packed))
        log.seq, log.time_ms = seq, time_ms
        committed.change(name, log, key, (counter, stack))
        self.unflushed.grow(tail, key[1], counter, seq)
        if touched is not None:
            touched.soon.add(log.id)
        return _new(Stored, (epoch, seq, prev, packed))

    def _expire(self, now_ms: int) -> None:
        """Drop producers that were unused for long, in a separate commit, at most once a minute.

        For lack of space it is skipped.
        """
        try:
            self._drop_unused(now_ms)
        except apsw.Error as error:
            if not is_full(error, self.connection):
                raise
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self.expiry.skip(now_ms)

    def _drop_unused(self, now_ms: int) -> None:
        connection, expiry = self.connection, self.expiry
        decided = expiry.decide(connection, now_ms)
        if expiry.changes(decided):
            # Producers used on a day are recorded with that day when it ends. They may be among the
            # rows to drop, since a row is as old as the last flush of its producer.
            ended = self.unflushed.all() if decided.day != expiry.day else _NOTHING
            connection.execute("BEGIN IMMEDIATE")
            expiry.write(connection, decided)
            apply.write_flush(connection, ended, expiry.day)
            connection.execute("COMMIT")
            self.unflushed.flushed(ended)
        expiry.apply(decided, now_ms)
        if decided.unused:
            self.committed.forget_producers()

    def remove(self, log: str, upto: int, controls_upto: int, touched: Touched | None) -> Removed:
        """See ``log.Partition``. ``touched``: as for ``append_lone``."""
        end = self.committed.log(log)
        flush = _NOTHING if end is None else self.unflushed.upto(end.id, upto)
        self.connection.execute("BEGIN IMMEDIATE")
        apply.write_flush(self.connection, flush, self.expiry.day)
        removed = removal.remove(self.connection, log, upto, controls_upto, self._unpack)
        self.connection.execute("COMMIT")
        self.unflushed.flushed(flush)
        if touched is not None and end is not None:
            touched.soon.add(end.id)
        return removed

    def flush(self) -> None:
        """Write the ends of producers missing in their table, in a separate commit, if any."""
        flush = self.unflushed.all()
        if flush.logs:
            self.connection.execute("BEGIN IMMEDIATE")
            apply.write_flush(self.connection, flush, self.expiry.day)
            self.connection.execute("COMMIT")
            self.unflushed.flushed(flush)

    def write_rest(self) -> None:
        """As ``flush``, in the open transaction of a caller that then discards this object."""
        apply.write_flush(self.connection, self.unflushed.all(), self.expiry.day)


# Its annotations are evaluated when it is compiled: after the classes that they name.
class Written(NamedTuple):
    """A batch that was decided and written, but is not committed yet."""

    opened: Opened
    changes: Changes
    outcomes: list[Outcome]
    forced: bool
    accounts: frozenset[str]
    """Logs in which it has stored nothing but changes of accounts."""


@final
class FileIdentity:
    """Checks whether the open file is still the one at its path.

    If somebody removes an open file, everything written to it is lost without an error. So its
    writer checks from time to time, and stops acknowledging.
    """

    __slots__ = ("_checked_ms", "_file", "_path")

    def __init__(self, path: Path) -> None:
        """Create without a file. ``path``: its location."""
        self._path = path
        self._file: tuple[int, int] | None = None
        self._checked_ms = 0

    def opened(self) -> None:
        """The file was opened just now."""
        self._file, self._checked_ms = self._found(), 0

    def check(self, now_ms: int) -> None:
        """Check, at most once a second, that the file is there.

        Raises:
            StoreUnavailable: it is missing, or was replaced.
        """
        if abs(now_ms - self._checked_ms) < CHECK_MS:
            return
        if self._found() != self._file:
            raise StoreUnavailable(
                f"{self._path} was moved, removed or replaced while it was in use: put that very "
                "file back, or stop the relay and restore a backup"
            )
        self._checked_ms = now_ms

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - as in ``reader``
        except OSError:
            return None
        return status.st_dev, status.st_ino
