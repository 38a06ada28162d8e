"""What a partition's writer knows and changes, as plain data: the input and the output of deciding.

A commit is made in three steps. A ``View`` is read (``view``). ``decide`` turns it and a batch into
outcomes and ``Changes``, without I/O. The changes are made durable and applied (``apply``). The
epochs and times that were chosen are in them: applying them gives the same state anywhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

from relay.chat.entries import NO_EPOCH, Entry, Submission
from relay.chat.repeats import Stack

SEQ_BITS: Final = 40
"""An entry's rowid is ``log_id << 40 | seq``: the primary key (log, seq) in one integer, which is
the cheapest key SQLite has, and keeps large bodies out of the tree's inner pages."""
SEQ_MASK: Final = (1 << SEQ_BITS) - 1
LOGS_MAX: Final = (1 << (63 - SEQ_BITS)) - 1

ProducerKey = tuple[str, bytes]
"""(log, producer)."""
EntryRow = tuple[int, int, int, int, bytes]
"""As in the table ``entry``: row id, time, chain, jump, packed."""


StateRow = tuple[int, int, int, int, bytes]
"""As in the table ``state``: log id, seq, guarded, due_ms, packed."""


ProducerRow = tuple[int, bytes, int, int]
"""Of the table ``producer``: log id, producer, counter, seq."""


def row_id(log_id: int, seq: int) -> int:
    """Return the primary key of an entry."""
    return log_id << SEQ_BITS | seq


@final
class LogEnd:
    """The end of one log."""

    __slots__ = (
        "epoch", "first_seq", "generation", "guarded", "id", "packed_state", "seq", "state",
        "time_ms",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        epoch: bytes,
        first_seq: int,
        seq: int,
        time_ms: int,
        generation: int,
        guarded: bool = False,
        packed_state: bytes = b"",
        state: object = None,
    ) -> None:
        """Make one.

        Args:
            id: 0: it does not exist yet.
            epoch: of its last entry.
            first_seq: where that epoch begins.
            seq: of its last entry.
            time_ms: likewise.
            generation: of the file, when that epoch began.
            guarded: each message is judged by the rules before it is stored.
            packed_state: what control entries have made of the log; empty: there were none.
            state: the same, read, if somebody has looked.
        """
        self.id = id
        self.epoch = epoch
        self.first_seq = first_seq
        self.seq = seq
        self.time_ms = time_ms
        self.generation = generation
        self.guarded = guarded
        self.packed_state = packed_state
        self.state = state

    def copy(self) -> LogEnd:
        """Return one that can be changed."""
        return LogEnd(
            self.id, self.epoch, self.first_seq, self.seq, self.time_ms, self.generation,
            self.guarded, self.packed_state, self.state,
        )  # fmt: skip


NO_LOG: Final = LogEnd(0, NO_EPOCH, 0, 0, 0, -1, guarded=True)
"""Guarded: whoever begins it may have to be asked for more than the message."""


@final
class ProducerEnd:
    """The last entry of one producer in one log."""

    __slots__ = ("committed", "counter", "log", "stack")

    def __init__(self, log: LogEnd, counter: int, stack: Stack, committed: int) -> None:
        """Make one.

        Args:
            log: where.
            counter: 0: not known.
            stack: see ``chat.repeats``.
            committed: the counter when the view was read.
        """
        self.log = log
        self.counter = counter
        self.stack = stack
        self.committed = committed


UNREADABLE: Final = ProducerEnd(NO_LOG, -1, (), -1)
"""In the place of an end that is on a damaged page. No counter is the next one of it."""


class Original(NamedTuple):
    """The entry that a committed counter was used for."""

    seq: int
    """0: nothing of it is kept."""
    epoch: bytes
    entry: Entry | None
    stub: bytes = b""
    """What is kept of it instead, if it was removed (``stub``)."""


DAMAGED: Final = Original(0, b"", None)
"""An entry that cannot be read."""


class Target(NamedTuple):
    """An entry that another one is about."""

    row: int
    entry: Entry


class More:
    """What a batch changes besides, seldom: direct messages, and entries about other entries."""

    __slots__ = (
        "confirmed", "controls", "directs", "edits", "erased", "folds", "marks", "members",
        "pending", "proof", "seen",
    )  # fmt: skip

    def __init__(self) -> None:
        """Begin with none."""
        self.controls: list[tuple[int, int]] = []
        """(log id, seq) of entries of kind *system*."""
        self.directs: list[tuple[int, str, int, bytes, int]] = []
        """As in the table ``direct``."""
        self.pending: list[tuple[int, int]] = []
        self.confirmed: list[tuple[str, int]] = []
        """(log, seq) of what is pending no more."""
        self.edits: list[tuple[int, int, int]] = []
        """As in the table ``edit``."""
        self.erased: list[tuple[bytes, int]] = []
        """(new bytes, row id) of entries whose body is erased."""
        self.marks: list[tuple[int, str, bytes, int, int]] = []
        """As in the table ``mark``."""
        self.proof = False
        """True: something is to be written, whatever it is: it proves that it can be."""
        self.folds: list[tuple[int, bytes, str]] = []
        """(seq, packed, log): what its control entries up to seq make of it."""
        self.members: dict[tuple[str, int], tuple[bytes, int]] = {}
        """(handle, log id) to (root, role) of whose role has changed; 0: they have none now."""
        self.seen: list[tuple[int, str]] = []
        """(when in ms, inbox): its owner was last here."""


class View:
    """What is committed, as far as one batch needs it. It is used up by the decision about it."""

    __slots__ = (
        "copies", "edit_counts", "edits", "ends", "generation", "logs", "next_log_id", "originals",
        "places", "producers", "targets",
    )  # fmt: skip

    def __init__(self, generation: int) -> None:
        """Begin with nothing.

        Args:
            generation: the file's: logs whose epoch is of another one begin a new epoch.
        """
        self.generation = generation
        self.logs: dict[str, LogEnd] = {}
        self.producers: dict[ProducerKey, ProducerEnd] = {}
        self.ends: list[ProducerEnd] = []
        """Of the producer of each submission; as many of them as these can be decided about."""
        self.originals: dict[tuple[str, bytes, int], Original] = {}
        """By (log, producer, counter), for the counters of the batch that were used before it."""
        self.next_log_id = 0
        """Known when a log of the batch does not exist yet."""
        self.copies: dict[ProducerKey, ProducerEnd] = {}
        """Likewise of the inboxes that copies come from: the last place in there that was taken."""
        self.targets: dict[tuple[str, bytes, int], Target] = {}
        """By (log, epoch, seq): entries that submissions are about, as far as they are there."""
        self.places: dict[Submission, tuple[bytes, int]] = {}
        """Of copies that are about a message of the sender's: where its copy is here."""
        self.edits: dict[tuple[str, int], list[Target]] = {}
        """By (log, seq) of a message that is to be erased: its edits, before this batch."""
        self.edit_counts: dict[tuple[str, int], int] = {}
        """By (log, seq) of a message that is to be edited: how often it was, up to the bound."""


@final
class Flush:
    """What ends tails (``unflushed``): it is in the table ``producer`` then."""

    __slots__ = ("logs", "producers")

    def __init__(self) -> None:
        """Begin with none."""
        self.producers: list[ProducerRow] = []
        """Of one that is there twice the last one counts."""
        self.logs: list[tuple[int]] = []
        """Ids of the logs whose tails end."""


@final
class TailGrowth:
    """What a commit appends to one log."""

    __slots__ = ("entries", "first_seq", "log_id", "producers")

    def __init__(self, log_id: int, first_seq: int) -> None:
        """Begin with no entry; the first will have this seq."""
        self.log_id = log_id
        self.first_seq = first_seq
        self.entries = 0
        self.producers: list[ProducerRow] = []
        """How it leaves those that have sent them."""


class Changes:
    """All that a batch changes. Applying it needs no clock, no randomness and no decision."""

    __slots__ = (
        "copies", "entries", "flush", "logs", "more", "new_epochs", "new_logs", "producers",
        "states", "tails_begun", "tails_grown",
    )  # fmt: skip

    def __init__(self, logs: dict[str, LogEnd], producers: dict[ProducerKey, ProducerEnd]) -> None:
        """Begin with none.

        Args:
            logs: how the logs of the batch end; kept up to date by who decides.
            producers: likewise its producers. Some may not have changed.
        """
        self.new_logs: list[tuple[int, str]] = []
        """(log id, name)."""
        self.new_epochs: list[tuple[int, int, bytes, int]] = []
        """(log id, first seq, epoch, generation)."""
        self.entries: list[EntryRow] = []
        self.states: dict[int, StateRow] = {}
        """By log id, for logs with control entries in the batch."""
        self.logs = logs
        self.producers = producers
        self.copies: dict[ProducerKey, ProducerEnd] = {}
        self.more: More | None = None
        self.tails_begun: list[tuple[int, int]] = []
        """As in the table ``unflushed``. What concerns tails is chosen by ``Unflushed.plan``."""
        self.tails_grown: list[TailGrowth] = []
        self.flush = Flush()
