"""A partition's writer's cache of its file: only committed data, and only part of it.

Invariant "Accepted means committed".

All caches are bounded, that of logs by its bytes: the state of a room is as large as its people
make it. Anything else is read from the file, inside or outside the writer's transaction.
"""

from __future__ import annotations

from typing import Any, Final

import apsw

from relay.chat.repeats import Stack, rebuilt
from relay.store.file.schema import epoch_at, rows
from relay.store.state import SEQ_MASK, Changes, LogEnd, ProducerKey, row_id
from relay.store.unflushed import Unflushed

LOGS_BYTES_MAX: Final = 8 * 1024 * 1024
"""For the ends of logs, per partition: 13,000 rooms without a record of people, or about ten of the
largest rooms."""
END_BYTES: Final = 640
"""Of an end without its state; with its name and its place in the cache."""
UNPACKED: Final = 8
"""A state that is also decoded takes up to so many times the bytes of the packed one, both
together."""
PRODUCERS_REMEMBERED_MAX: Final = 8192
"""About half a KiB each, and the same number of copies; their size is not the peer's choice."""
UNKNOWN: Final = -1
NEVER: Final = 1 << 62
"""Times in ms."""
PENDING_PEERS: Final = """
WITH RECURSIVE
inbox(log_id, first) AS (SELECT log_id, min(seq) FROM pending GROUP BY log_id),
with_peer(log_id, first, peer) AS (
    SELECT log_id, first, (SELECT min(peer) FROM direct WHERE direct.log_id=inbox.log_id) FROM inbox
    UNION ALL
    SELECT log_id, first, (
        SELECT min(direct.peer) FROM direct
        WHERE direct.log_id=with_peer.log_id AND direct.peer>with_peer.peer
    ) FROM with_peer WHERE peer IS NOT NULL
)
SELECT direct.log_id, direct.seq, direct.peer FROM with_peer
CROSS JOIN direct ON direct.log_id=with_peer.log_id AND direct.peer=with_peer.peer
    AND direct.seq>=first
CROSS JOIN pending ON pending.log_id=direct.log_id AND pending.seq=direct.seq
"""
"""The recipients of pending messages. The table's key has the peer before the seq: one lookup for
each peer of an inbox, then its rows from the oldest pending message on."""


class Committed:
    """The ends of logs and producers, as of the last commit.

    Ends of producers that are only in the entries of the file are also in ``Unflushed``, which
    drops none.
    """

    def __init__(self, connection: apsw.Connection, unflushed: Unflushed) -> None:
        self._connection = connection
        self._unflushed = unflushed
        self.reads = 0
        """Number of reads from the file, and of operations that count like reads (``ReadBudget``).
        """
        self.logs_bytes_max = LOGS_BYTES_MAX
        self.producers_max = PRODUCERS_REMEMBERED_MAX
        self._next_log_id = 0
        self._due_ms = UNKNOWN
        """When the next part of a state expires, or earlier."""
        self.logs: dict[str, LogEnd] = {}
        """The remembered ends, for a look that must not read the file; the last used comes last."""
        self.logs_bytes = 0
        """What they take, about."""
        self.producers: dict[ProducerKey, tuple[int, Stack]] = {}
        """The same, of producers: (last counter, stack)."""
        self._copies: dict[ProducerKey, int] = {}

    def remembered_log(self, name: str) -> LogEnd | None:
        """The same as ``log``, but without reading the file; None if that would be needed."""
        return self.logs.get(name)

    def log(self, name: str) -> LogEnd | None:
        """Return the end of a log, or None if it does not exist. Must not be modified."""
        end = self.logs.get(name)
        if end is None:
            end = self._read_log(name)
            if end is not None:
                self._remember_log(name, end)
        return end

    def producer(self, key: ProducerKey, log_id: int) -> tuple[int, Stack] | None:
        """Return (last counter, stack) of a producer in a log, or None if it is not known.

        Raises:
            apsw.Error: it cannot be read.
        """
        end = self.producers.get(key)
        if end is None:
            last = self._unflushed.last(log_id, key[1])
            if last is None:
                found = self._rows(
                    "SELECT counter, seq FROM producer WHERE log_id=? AND producer=?",
                    (log_id, key[1]),
                )
                if not found:
                    return None
                last = found[0]
            counter, seq = last
            end = counter, rebuilt(counter, seq, lambda at: self.links(row_id(log_id, at)))
            self._remember_producer(key, end)
        return end

    def taken(self, key: ProducerKey, log_id: int, peer: str, epoch: bytes) -> int:
        """Return the last position of a peer's inbox, in an epoch, whose copy is here; 0: none.

        Args:
            key: cache key.
            log_id: of the log that receives the copies.
            peer: the owner of the inbox.
            epoch: of that inbox.
        """
        taken = self._copies.get(key)
        if taken is None:
            found = self._rows(
                "SELECT max(origin) FROM direct WHERE log_id=? AND peer=? AND epoch=?",
                (log_id, peer, epoch),
            )
            taken = found[0][0] or 0
            self._remember_copy(key, taken)
        return taken

    def copy_of(self, log_id: int, peer: str, epoch: bytes, origin: int) -> int:
        """Return the seq of the copy of a message from a peer's inbox; 0: there is none."""
        found = self._rows(
            "SELECT seq FROM direct WHERE log_id=? AND peer=? AND epoch=? AND origin=?",
            (log_id, peer, epoch, origin),
        )
        return found[0][0] if found else 0

    def edits(self, log_id: int, seq: int) -> list[int]:
        """Return the seqs of the edits of a message."""
        found = self._rows("SELECT seq FROM edit WHERE log_id=? AND target=?", (log_id, seq))
        return [edit for (edit,) in found]

    def count_edits(self, log_id: int, seq: int, most: int) -> int:
        """Return how many edits a message has; counting stops at ``most``."""
        found = self._rows(
            "SELECT count(*) FROM (SELECT 1 FROM edit WHERE log_id=? AND target=? LIMIT ?)",
            (log_id, seq, most),
        )
        return int(found[0][0])

    def pending(self) -> list[tuple[str, int, str]]:
        """See ``log.Partition``."""
        try:
            peers = {(log_id, seq): peer for log_id, seq, peer in self._rows(PENDING_PEERS)}
        except apsw.CorruptError:  # affects those who need that page
            peers = {}
        pending = self._rows("SELECT log_id, seq FROM pending ORDER BY log_id, seq")
        names = {log_id: self._name(log_id) for log_id in dict(pending)}
        return [
            (names[log_id], seq, peers.get((log_id, seq), ""))
            for log_id, seq in pending
            if names[log_id]
        ]

    def links(self, row: int) -> tuple[int, int] | None:
        """Return (chain, jump) of an entry, or None if it is no longer kept."""
        found = self._rows("SELECT chain, jump FROM entry WHERE id=?", (row,))
        return found[0] if found else None

    def packed(self, row: int) -> bytes | None:
        """Return the bytes of an entry, or None if it is no longer kept."""
        found = self._rows("SELECT CAST(packed AS BLOB) FROM entry WHERE id=?", (row,))
        return found[0][0] if found else None

    def epoch_at(self, log: LogEnd, seq: int) -> bytes:
        """Return the epoch that a seq of a log belongs to."""
        if seq >= log.first_seq:
            return log.epoch
        self.reads += 1
        return epoch_at(self._connection, log.id, seq)

    def due(self, now_ms: int) -> list[str]:
        """Return the logs whose state contains something that has expired, if it can be read."""
        if self._due_ms == UNKNOWN:
            [(first_ms,)] = self._rows("SELECT min(due_ms) FROM state WHERE due_ms > 0")
            self._due_ms = NEVER if first_ms is None else first_ms
        if now_ms < self._due_ms:
            return []
        self._due_ms = UNKNOWN  # handling these changes it
        found = self._rows("SELECT log_id FROM state WHERE due_ms > 0 AND due_ms <= ?", (now_ms,))
        return [name for (log_id,) in found if (name := self._name(log_id))]

    def _name(self, log_id: int) -> str:
        """Return the name of a log; empty: it cannot be read."""
        try:
            found = self._rows("SELECT name FROM log WHERE id=?", (log_id,))
        except apsw.CorruptError:  # affects the logs on that page
            return ""
        return found[0][0] if found else ""

    def begin_reads(self) -> None:
        """Begin a series of reads in one transaction, which makes each a third cheaper."""
        self._connection.execute("BEGIN")

    def end_reads(self) -> None:
        """End it. With a rollback: nothing was written, and a commit fails after a damaged page."""
        self._connection.execute("ROLLBACK")

    def next_log_id(self) -> int:
        """Return the id of the next new log; it may exceed ``LOGS_MAX``."""
        if self._next_log_id == 0:
            self._next_log_id = (self._rows("SELECT max(id) FROM log")[0][0] or 0) + 1
        return self._next_log_id

    def apply(self, changes: Changes) -> None:
        """Update the caches with a batch that has been committed."""
        if changes.new_logs:
            self._next_log_id = changes.new_logs[-1][0] + 1
        for _, _, _, due_ms, _ in changes.states.values():
            if due_ms and self._due_ms != UNKNOWN:
                self._due_ms = min(self._due_ms, due_ms)
        for name, log in changes.logs.items():
            if log.id:
                self._remember_log(name, log)
        for key, producer in changes.producers.items():
            if producer.counter:
                self._remember_producer(key, (producer.counter, producer.stack))
        for key, copy in changes.copies.items():
            self._remember_copy(key, copy.counter)

    def change(self, name: str, log: LogEnd, key: ProducerKey, producer: tuple[int, Stack]) -> None:
        """Change the ends of a log and of a producer that are remembered, after a commit."""
        logs, producers = self.logs, self.producers
        del logs[name], producers[key]  # the most recently used comes last
        logs[name] = log
        producers[key] = producer

    def forget_producers(self) -> None:
        """Clear the producers: some were dropped from the file.

        Those in tails were not (``Unflushed``).
        """
        self.producers.clear()

    def _remember_log(self, name: str, end: LogEnd) -> None:
        logs = self.logs
        before = logs.pop(name, None)
        if before is not None:
            self.logs_bytes -= _bytes_of(before)
        logs[name] = end  # the most recently used comes last
        self.logs_bytes += _bytes_of(end)
        while self.logs_bytes > self.logs_bytes_max and len(logs) > 1:
            self.logs_bytes -= _bytes_of(logs.pop(next(iter(logs))))

    def _remember_producer(self, key: ProducerKey, end: tuple[int, Stack]) -> None:
        producers = self.producers
        producers.pop(key, None)
        producers[key] = end
        if len(producers) > self.producers_max:
            del producers[next(iter(producers))]

    def _remember_copy(self, key: ProducerKey, taken: int) -> None:
        copies = self._copies
        copies.pop(key, None)
        copies[key] = taken
        if len(copies) > self.producers_max:
            del copies[next(iter(copies))]

    def _read_log(self, name: str) -> LogEnd | None:
        found = self._rows(
            "SELECT log.id, floor, floor_ms, guarded, packed FROM log "
            "LEFT JOIN state ON state.log_id = log.id WHERE name=?",
            (name,),
        )
        if not found:
            return None
        log_id, seq, time_ms, guarded, state = found[0]
        epoch, first_seq, generation = self._rows(
            "SELECT epoch, first_seq, generation FROM epoch WHERE log_id=? "
            "ORDER BY first_seq DESC LIMIT 1",
            (log_id,),
        )[0]
        last = self._rows(
            "SELECT id, time_ms FROM entry WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1",
            (row_id(log_id, 1), row_id(log_id, SEQ_MASK)),
        )
        if last and last[0][0] & SEQ_MASK > seq:
            seq, time_ms = last[0][0] & SEQ_MASK, last[0][1]
        return LogEnd(
            log_id, epoch, first_seq, seq, time_ms, generation, bool(guarded), state or b""
        )

    def _rows(self, statement: str, bindings: tuple[int | str | bytes, ...] = ()) -> list[Any]:
        self.reads += 1
        return rows(self._connection, statement, bindings)


def _bytes_of(end: LogEnd) -> int:
    """Return what a remembered end takes. It stays the same: a state is replaced with its end."""
    return END_BYTES + len(end.packed_state) * (1 if end.state is None else UNPACKED)
