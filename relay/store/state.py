"""What a partition's writer knows and changes, as plain data: input and output of a decision.

A commit has three steps. A ``View`` is read (``view``). ``decide`` turns it and a batch into
outcomes and ``Changes``, without I/O. The changes are made durable and applied (``apply``). They
contain the chosen epochs and times, so applying them gives the same state anywhere.
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
"""As in the table ``producer``: log id, producer, counter, seq."""


def row_id(log_id: int, seq: int) -> int:
    """Return the primary key of an entry."""
    return log_id << SEQ_BITS | seq


@final
class LogEnd:
    """The end of one log."""

    __slots__ = (
        "begun", "epoch", "first_seq", "generation", "guarded", "id", "packed_state", "seq",
        "state", "time_ms",
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
        begun: bytes | None = None,
    ) -> None:
        """Create.

        Args:
            id: 0: it does not exist yet.
            epoch: of its last entry.
            first_seq: where that epoch begins.
            seq: of its last entry.
            time_ms: of its last entry.
            generation: of the file, when that epoch began.
            guarded: each message is checked by the rules before it is stored.
            packed_state: the state after its control entries; empty: there were none.
            state: the same, decoded, once it was needed.
            begun: the epoch that ``Submission.identity`` is compared with, once it was needed and
                read.
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
        self.begun = begun

    def copy(self) -> LogEnd:
        """Return a copy that may be modified."""
        return LogEnd(
            self.id, self.epoch, self.first_seq, self.seq, self.time_ms, self.generation,
            self.guarded, self.packed_state, self.state, self.begun,
        )  # fmt: skip


NO_LOG: Final = LogEnd(0, NO_EPOCH, 0, 0, 0, -1, guarded=True)
"""Guarded: creating the log may require more than the message."""


@final
class ProducerEnd:
    """The last entry of one producer in one log."""

    __slots__ = ("committed", "counter", "log", "stack")

    def __init__(self, log: LogEnd, counter: int, stack: Stack, committed: int) -> None:
        """Create.

        Args:
            log: its log.
            counter: 0: not known.
            stack: see ``chat.repeats``.
            committed: the counter when the view was read.
        """
        self.log = log
        self.counter = counter
        self.stack = stack
        self.committed = committed


UNREADABLE: Final = ProducerEnd(NO_LOG, -1, (), -1)
"""Used for an end on a damaged page. No counter is the next one after it."""


class Original(NamedTuple):
    """The entry that a committed counter was used for."""

    seq: int
    """0: nothing of it is kept."""
    epoch: bytes
    entry: Entry | None
    stub: bytes = b""
    """The stub that replaces a removed entry (``stub``)."""


DAMAGED: Final = Original(0, b"", None)
"""An entry that cannot be read."""


class Target(NamedTuple):
    """An entry that another one is about."""

    row: int
    entry: Entry


class More:
    """Less frequent changes of a batch: direct messages, and entries about other entries."""

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
        """(log, seq) of messages that are no longer pending."""
        self.edits: list[tuple[int, int, int]] = []
        """As in the table ``edit``."""
        self.erased: list[tuple[bytes, int]] = []
        """(new bytes, row id) of entries whose body is erased."""
        self.marks: list[tuple[int, str, bytes, int, int]] = []
        """As in the table ``mark``."""
        self.proof = False
        """True: something must be written, whatever it is, to test whether that is possible."""
        self.folds: list[tuple[int, bytes, str]] = []
        """(seq, packed state after the control entries up to it, log)."""
        self.members: dict[tuple[str, int], tuple[bytes, int, bool]] = {}
        """(handle, log id) to (root, role, lasting) of changed roles; role 0: none any more."""
        self.seen: list[tuple[int, str]] = []
        """(time in ms, inbox): when its owner was last connected."""


class View:
    """The committed data that one batch needs. The decision about the batch modifies it."""

    __slots__ = (
        "copies", "edit_counts", "edits", "ends", "generation", "logs", "next_log_id", "originals",
        "places", "producers", "targets",
    )  # fmt: skip

    def __init__(self, generation: int) -> None:
        """Create an empty view.

        Args:
            generation: of the file; logs with an epoch of another one begin a new epoch.
        """
        self.generation = generation
        self.logs: dict[str, LogEnd] = {}
        self.producers: dict[ProducerKey, ProducerEnd] = {}
        self.ends: list[ProducerEnd] = []
        """The producer of each submission; only as many submissions can be decided."""
        self.originals: dict[tuple[str, bytes, int], Original] = {}
        """By (log, producer, counter), for counters in the batch that were used before it."""
        self.next_log_id = 0
        """Set if a log of the batch does not exist yet."""
        self.copies: dict[ProducerKey, ProducerEnd] = {}
        """The inboxes that copies come from: the last position in each that was copied."""
        self.targets: dict[tuple[str, bytes, int], Target] = {}
        """By (log, epoch, seq): existing entries that submissions are about."""
        self.places: dict[Submission, tuple[bytes, int]] = {}
        """For copies about a message of the sender: the position of its copy here."""
        self.edits: dict[tuple[str, int], list[Target]] = {}
        """By (log, seq) of a message to erase: its edits before this batch."""
        self.edit_counts: dict[tuple[str, int], int] = {}
        """By (log, seq) of a message to edit: the number of its edits, up to the limit."""


@final
class Flush:
    """What ends tails (``unflushed``): their producers are then in the table ``producer``."""

    __slots__ = ("logs", "producers")

    def __init__(self) -> None:
        """Begin with none."""
        self.producers: list[ProducerRow] = []
        """If one occurs twice, the last row counts."""
        self.logs: list[tuple[int]] = []
        """Ids of the logs whose tails end."""


@final
class TailGrowth:
    """What a commit appends to one log."""

    __slots__ = ("entries", "first_seq", "log_id", "producers")

    def __init__(self, log_id: int, first_seq: int) -> None:
        """Create without entries; the first one will have this seq."""
        self.log_id = log_id
        self.first_seq = first_seq
        self.entries = 0
        self.producers: list[ProducerRow] = []
        """The resulting ends of their senders."""


class Changes:
    """All changes by a batch. Applying them needs no clock, no randomness and no decision."""

    __slots__ = (
        "copies", "entries", "flush", "logs", "more", "new_epochs", "new_logs", "producers",
        "states", "tails_begun", "tails_grown",
    )  # fmt: skip

    def __init__(self, logs: dict[str, LogEnd], producers: dict[ProducerKey, ProducerEnd]) -> None:
        """Create without changes.

        Args:
            logs: the resulting ends of the batch's logs; updated while deciding.
            producers: the same for its producers. Some may not have changed.
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
        """As in the table ``unflushed``. ``Unflushed.plan`` decides about tails."""
        self.tails_grown: list[TailGrowth] = []
        self.flush = Flush()
