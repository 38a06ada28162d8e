"""The writer of one partition: group commits into SQLite in WAL mode.

In-memory heads and de-duplication change only after COMMIT has returned (invariant "Accepted means
committed").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import apsw

from relay.chat.entries import NO_EPOCH, Head, Kind, Submission
from relay.chat.names import is_inbox
from relay.store.decide import Pack
from relay.store.file.generation import Durability, Host
from relay.store.file.opening import Check
from relay.store.log import Outcome, Removed, Stored
from relay.store.notes import Notes
from relay.store.opened import CHECK_MS, Write, Written
from relay.store.partition_file import PartitionFile
from relay.store.read_budget import ReadBudget
from relay.store.rules import Rules
from relay.store.state import LOGS_MAX, LogEnd, More
from relay.store.touched import Touched
from relay.store.view import UnpackEntry

CHECK_LIMIT_S: Final = 1.0
"""For a running server, whose loop waits. Before it serves, ``recovery`` checks without a limit."""
_SYSTEM: Final = int(Kind.SYSTEM)
_NONE: Final[frozenset[str]] = frozenset()


class SqlitePartition(PartitionFile):
    """See ``log.Partition``.

    What ``begin`` returns runs in a thread; other uses of the file then wait. ``head`` of a log in
    use only needs memory.
    """

    def __init__(
        self,
        path: Path,
        lock_path: Path,
        *,
        host: Host,
        durability: Durability,
        pack: Pack,
        unpack_entry: UnpackEntry,
        write: Write | None = None,
        rules: Rules | None = None,
        index: int | None = None,
        check_limit_s: float | None = CHECK_LIMIT_S,
    ) -> None:
        """Take the partition's lock and open its file.

        Args:
            path: the partition's file; created if it does not exist.
            lock_path: its lock file; created likewise.
            host: the machine.
            durability: what commits survive.
            pack: converts the fields of an entry to the bytes sent to readers.
            unpack_entry: reads (kind, content type, body) back from them.
            write: writes changes into the open transaction; None: ``apply.write``.
            rules: who may append; None: everybody.
            index: the partition's number, for the check after doubt; None: not checked.
            check_limit_s: limit for a full check after doubt; None: none. The rest is trusted.

        Raises:
            NotTheWriter: another process holds the lock.
            StoreCorrupt: the file is torn or damaged.
            StoreError: it cannot be opened.
        """
        self._pack = pack
        self._rules = rules
        self.logs_max = LOGS_MAX
        self.touched: Touched | None = None
        """Receives the changed logs, for a follower (``search``); None: there is none."""
        self._notes = Notes()
        self._appended_ms = 0
        """When ``append`` last did what is due from time to time."""
        check = Check(unpack_entry, check_limit_s, index)
        super().__init__(path, lock_path, host, durability, unpack_entry, write, check)

    # --- appending ------------------------------------------------------------------------------
    def append(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome]:
        """See ``log.Partition``."""
        with self._one_user:
            return self._end_commit(self._write_batch(batch, now_ms, budget, apart=False))

    def begin(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome] | Callable[[], list[Outcome]]:
        """See ``log.Partition``."""
        with contextlib.ExitStack() as using:
            using.enter_context(self._one_user)
            written = self._write_batch(batch, now_ms, budget, apart=True)
            may_wait = written.forced or self._durability == "power"
            if may_wait and written.opened.unfinished(now_ms):
                using.pop_all()  # what is returned releases it
                return partial(self._commit, written)
            return self._end_commit(written)

    def _commit(self, written: Written) -> list[Outcome]:
        try:
            return self._end_commit(written)
        finally:
            self._one_user.release()

    def append_lone(self, submission: Submission, now_ms: int) -> Stored | None:
        """See ``log.Partition``."""
        with self._one_user:
            if not 0 <= now_ms - self._appended_ms < CHECK_MS:
                self._end_commit(self._write_batch([], now_ms, None, apart=False))  # what is due
            opened, ruled = self._opened, self._rules is not None
            if opened is None or self._suspected is not None or not self._notes.empty:
                return None
            try:
                return opened.append_lone(submission, now_ms, self._pack, self.touched, ruled=ruled)
            except BaseException as error:
                self._give_up(error)
                raise

    def _write_batch(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None, *, apart: bool
    ) -> Written:
        opened = self._open_to_commit()
        self._identity.check(now_ms)
        self._appended_ms = now_ms
        try:
            outcomes, changes, controls = opened.decide(
                batch,
                now_ms,
                budget,
                pack=self._pack,
                random_bytes=self._host.random_bytes,
                logs_max=self.logs_max,
                rules=self._rules,
                waits=self._durability == "power",
            )
            if changes.more is not None and changes.more.erased:
                self.erased = True
            if not self._notes.empty:
                changes.more = changes.more or More()
                self._notes.add_to(changes.more)
            forced = controls and self._durability == "process"
            opened.write(changes, forced=forced, apart=apart)
        except BaseException as error:
            self._give_up(error)
            raise
        return Written(opened, changes, outcomes, forced, _accounts(batch) if controls else _NONE)

    def _end_commit(self, written: Written) -> list[Outcome]:
        changes = written.changes
        try:
            written.opened.end(changes, forced=written.forced, now_ms=self._appended_ms)
        except BaseException as error:
            self._give_up(error)
            raise
        if self.touched is not None and changes.entries:
            self._note(self.touched, written)
        if not self._notes.empty:
            self._notes = Notes()  # no notes are added while a commit runs
        return written.outcomes

    def _note(self, touched: Touched, written: Written) -> None:
        """Record the changed logs."""
        accounts, logs = written.accounts, written.changes.logs
        if not accounts:
            touched.soon.update([end.id for end in logs.values() if end.id])
            return
        for name, end in logs.items():
            if end.id:
                (touched.later if name in accounts else touched.soon).add(end.id)

    def remove(self, log: str, upto: int, controls_upto: int) -> Removed:
        """See ``log.Partition``."""
        with self._one_user:
            opened = self._open_to_commit()
            try:
                removed = opened.remove(log, upto, controls_upto, self.touched)
            except BaseException as error:
                self._give_up(error)
                raise
            self.erased = self.erased or removed.entries > 0
            return removed

    def in_use(self, log: str) -> bool:
        """See ``log.Partition``."""
        opened = self._opened
        return opened is not None and opened.committed.remembered_log(log) is not None

    def head(self, log: str) -> Head:
        """See ``log.Partition``."""
        end = self._end(log)
        return Head(NO_EPOCH, 0) if end is None else Head(end.epoch, end.seq)

    def state(self, log: str) -> bytes:
        """See ``log.Partition``."""
        end = self._end(log)
        return b"" if end is None else end.packed_state

    def due(self, now_ms: int) -> list[str]:
        """See ``log.Partition``."""
        with self._one_user:
            self._identity.check(now_ms)
            try:
                return self._open().committed.due(now_ms)
            except apsw.Error as error:
                raise self._failed(error) from error

    def _end(self, log: str) -> LogEnd | None:
        opened = self._opened
        end = None if opened is None else opened.committed.remembered_log(log)
        if end is None:
            with self._one_user:
                try:
                    end = self._open().committed.log(log)
                except apsw.Error as error:
                    raise self._failed(error) from error
        return end

    def pending(self) -> list[tuple[str, int, str]]:
        """See ``log.Partition``."""
        with self._one_user:
            try:
                return self._open().committed.pending()
            except apsw.Error as error:
                raise self._failed(error) from error

    def confirm(self, delivered: list[tuple[str, int]]) -> None:
        """See ``log.Partition``."""
        self._notes.confirm(delivered)

    def note_seen(self, seen: list[tuple[str, int]]) -> None:
        """See ``log.Partition``."""
        self._notes.see(seen)

    def note_folds(self, folds: list[tuple[str, int, bytes]]) -> None:
        """See ``log.Partition``."""
        self._notes.fold(folds)

    def prove(self) -> None:
        """See ``log.Partition``."""
        self._notes.prove()


def _accounts(batch: list[Submission]) -> frozenset[str]:
    """Return the inboxes for which a batch has nothing but changes of their accounts."""
    changed = {one.log for one in batch if one.kind == _SYSTEM and is_inbox(one.log)}
    return frozenset(changed - {one.log for one in batch if one.kind != _SYSTEM})
