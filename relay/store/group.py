"""One group commit: what it would change, kept apart from what is committed until it is."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from relay import limits
from relay.chat.entries import NO_EPOCH, Content, Entry, Submission, committed
from relay.store.committed import Committed, LogEnd, ProducerEnd, ProducerKey
from relay.store.errors import StoreCorrupt, StoreFull
from relay.store.log import Expected, IdConflict, Outcome, Repeated, Stored, UnknownOutcome
from relay.chat.repeats import Descent, pushed
from relay.store.schema import LOGS_MAX, SEQ_BITS, epoch_at, row_id, rows

Pack = Callable[[Entry], bytes]
UnpackContent = Callable[[bytes], Content]
"""packed ENTRY -> what it says."""
Row = tuple[int, int, int, int, bytes]
"""As in the table ``entry``."""


class Group:
    """Decides about submissions one by one, then writes all that it accepted."""

    def __init__(
        self,
        connection: apsw.Connection,
        committed: Committed,
        *,
        generation: int,
        now_ms: int,
        pack: Pack,
        unpack_content: UnpackContent,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._connection = connection
        self._committed = committed
        self._generation = generation
        self._now_ms = now_ms
        self._pack = pack
        self._unpack_content = unpack_content
        self._random_bytes = random_bytes
        self._logs: dict[str, LogEnd] = {}
        self._producers: dict[ProducerKey, ProducerEnd] = {}
        self._descents: dict[ProducerKey, Descent] = {}
        self._new_logs: list[tuple[int, str]] = []
        self._new_epochs: list[tuple[int, int, bytes, int]] = []
        self._rows: dict[int, Row] = {}

    def offer(self, submission: Submission) -> Outcome:
        """Decide about one submission (rule 1)."""
        log, _, _, producer, counter, *_ = submission
        key = log, producer
        end = self._producers.get(key)
        if end is None:
            end = self._producers[key] = self._producer(key)
        if counter != end.counter + 1:
            if counter <= end.counter:
                return self._repeated(end, submission)
            return Expected(end.counter + 1) if end.counter else UnknownOutcome()

        state = end.log
        if state.generation != self._generation:
            self._begin_epoch(log, state)
        prev = state.seq
        state.seq = seq = prev + 1
        if self._now_ms > state.time_ms:
            state.time_ms = self._now_ms  # time in a log never goes back
        chain, jump, end.stack = pushed(end.stack, counter, seq)
        end.counter = counter
        packed = self._pack(committed(submission, state.epoch, seq, prev, state.time_ms))
        row = state.id << SEQ_BITS | seq
        self._rows[row] = (row, state.time_ms, chain, jump, packed)
        return Stored(state.epoch, seq, prev, packed)

    def write(self, day: int) -> None:
        """Put the group into the open transaction. ``day``: the file's, for producers."""
        insert = self._connection.executemany
        if not self._rows:
            return
        if self._new_logs:
            insert(
                "INSERT INTO log (id, name, floor, floor_ms) VALUES (?, ?, 0, 0)", self._new_logs
            )
        if self._new_epochs:
            insert("INSERT INTO epoch VALUES (?, ?, ?, ?)", self._new_epochs)
        insert("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", self._rows.values())
        insert(
            "INSERT OR REPLACE INTO producer VALUES (?, ?, ?, ?, ?)",
            [
                (end.log.id, key[1], end.counter, end.stack[-1], day)
                for key, end in self._producers.items()
                if end.counter
            ],
        )

    def remember(self) -> None:
        """After COMMIT: this is now the committed state."""
        self._committed.committed(self._logs, self._producers)

    # --- the ends that this group moves ---------------------------------------------------------
    def _producer(self, key: ProducerKey) -> ProducerEnd:
        state = self._log(key[0])
        known = self._committed.producer(key, state.id) if state.id else None
        return ProducerEnd(state, 0, ()) if known is None else ProducerEnd(state, *known)

    def _log(self, name: str) -> LogEnd:
        state = self._logs.get(name)
        if state is None:
            end = self._committed.log(name)
            state = (
                LogEnd(0, NO_EPOCH, 0, 0, -1)
                if end is None
                else LogEnd(end.id, end.epoch, end.seq, end.time_ms, end.generation)
            )
            self._logs[name] = state
        return state

    def _begin_epoch(self, name: str, state: LogEnd) -> None:
        """Rule 9; a new log is the simplest case of it."""
        if state.id == 0:
            state.id = self._new_log_id()
            self._new_logs.append((state.id, name))
        state.epoch = self._random_bytes(limits.EPOCH_BYTES)
        state.generation = self._generation
        self._new_epochs.append((state.id, state.seq + 1, state.epoch, self._generation))

    def _new_log_id(self) -> int:
        if self._new_logs:
            log_id = self._new_logs[-1][0] + 1
        else:
            log_id = (rows(self._connection, "SELECT max(id) FROM log")[0][0] or 0) + 1
        if log_id > LOGS_MAX:
            raise StoreFull(f"a partition holds at most {LOGS_MAX} logs")
        return log_id

    # --- repeats ---------------------------------------------------------------------------------
    def _repeated(self, end: ProducerEnd, submission: Submission) -> Outcome:
        state = end.log
        seq = self._original_seq(end, submission)
        packed = self._packed(row_id(state.id, seq)) if seq else None
        if packed is None:
            return Repeated(state.epoch, 0)
        try:
            content = self._unpack_content(packed)
        except Exception as error:
            raise StoreCorrupt(
                f"entry {seq} of log {submission.log} is damaged: restore it from a backup"
            ) from error
        if content != submission.content:
            return IdConflict(seq)
        return Repeated(self._epoch_at(state, seq), seq)

    def _original_seq(self, end: ProducerEnd, submission: Submission) -> int:
        key = submission.log, submission.producer
        descent = self._descents.get(key)
        if descent is None or submission.counter > descent.counter:
            descent = self._descents[key] = Descent(end.counter, end.stack[-1])
        log_id = end.log.id
        return descent.find(submission.counter, lambda seq: self._links(row_id(log_id, seq)))

    def _links(self, row: int) -> tuple[int, int] | None:
        staged = self._rows.get(row)
        return self._committed.links(row) if staged is None else (staged[2], staged[3])

    def _packed(self, row: int) -> bytes | None:
        staged = self._rows.get(row)
        if staged is not None:
            return staged[4]
        found = rows(self._connection, "SELECT packed FROM entry WHERE id=?", (row,))
        return found[0][0] if found else None

    def _epoch_at(self, state: LogEnd, seq: int) -> bytes:
        for log_id, first_seq, epoch, _ in reversed(self._new_epochs):
            if log_id == state.id and first_seq <= seq:
                return epoch
        return epoch_at(self._connection, state.id, seq)
