"""The interface of a backend for logs. ``sqlite`` is the only one.

Any other backend must pass tests/conformance/log_contract.py, too.

A *partition* is the unit of writing: it has one writer process (invariant "One writer per
partition") and holds many logs. A *reader* may be in any process and sees what is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from relay.chat.entries import Cursor, GapInfo, Head, Submission
from relay.chat.rooms.refusal import Refused
from relay.store.read_budget import ReadBudget


class Stored(NamedTuple):
    """Committed now. ``packed`` is the ENTRY as used in store, bus and members."""

    epoch: bytes
    seq: int
    prev: int
    packed: bytes


class Repeated(NamedTuple):
    """Committed before, with the same id and content. ``seq`` 0: no longer kept."""

    epoch: bytes
    seq: int


class IdConflict(NamedTuple):
    """The id was used for other content, as ``seq``; 0: too long ago to compare."""

    seq: int


class Expected(NamedTuple):
    """A counter was skipped: the producer must continue with this one."""

    counter: int


class UnknownOutcome(NamedTuple):
    """The producer's record is gone (30 days), so it is unknown whether the message was stored."""


class Began(NamedTuple):
    """Committed now, preceded in the same commit by the entry that creates its log."""

    epoch: bytes
    seq: int
    prev: int
    packed: bytes
    first: Stored


class Denied(NamedTuple):
    """Its sender lacks the right, by the state of the log when its turn came."""

    refused: Refused


class Forbidden(NamedTuple):
    """A new message that is not stored: its sender lacks the right, or it has no valid target."""

    code: int
    """An ErrorCode of the protocol."""


class LogRefused(NamedTuple):
    """This submission, unlike others of its batch, cannot be stored. A retry does not help."""

    reason: str
    """For the sender: what is wrong with the log or the message."""
    limit: int = 0
    """The limit that was reached; 0: none that the sender can be told."""


class LogUnreadable(NamedTuple):
    """What must be known to store this submission is damaged. Others of its batch are stored."""

    reason: str
    """For the operator: what cannot be read."""


Outcome = (
    Stored | Began | Repeated | IdConflict | Expected | UnknownOutcome | Denied | Forbidden
    | LogRefused | LogUnreadable
)  # fmt: skip


class Page(NamedTuple):
    """Rows in ascending order, each (seq, packed ENTRY). ``end``: there are no more beyond them."""

    rows: list[tuple[int, bytes]]
    end: bool


class ResumePoint(NamedTuple):
    """Where a reader continues: entries above ``after``, and a gap to report before them."""

    after: int
    gap: GapInfo | None


class Removed(NamedTuple):
    """What one step has removed."""

    floor: int
    """The log's new floor: entries up to this one are no longer kept."""
    entries: int
    bytes: int


class Partition(Protocol):
    """The one writer of a partition."""

    @property
    def commits_blocked(self) -> bool:
        """True while a checkpoint holds commits: a commit that begins waits for it."""

    @property
    def checkpointing(self) -> bool:
        """True while a checkpoint runs: the partition must not be closed."""

    def append(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome]:
        """Store a batch in one commit and return one outcome for each submission, in order.

        If the budget is used up, or a copy is about another copy of the batch, only the first
        submissions have outcomes, at least one; the others must be passed again. Returns only after
        the commit. If this raises, nothing is stored. A problem with one submission is its own
        outcome and never raises.

        Raises:
            StoreFull: no space.
            StoreError: anything else; the next call may succeed.
        """

    def begin(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome] | Callable[[], list[Outcome]]:
        """As ``append``, but return what waits for the disk, if anything, to be run in a thread.

        Until that has ended nothing else may write the partition.
        """

    def append_lone(self, submission: Submission, now_ms: int) -> Stored | None:
        """Store one message in a commit of its own, if nothing is to be decided or read.

        Returns:
            None if it is not the case: then nothing was done.

        Raises:
            StoreError: as ``append``.
        """

    def in_use(self, log: str) -> bool:
        """Return True if a log is in memory: appending to it does not read the file."""

    def head(self, log: str) -> Head:
        """Return the last committed entry of a log; (NO_EPOCH, 0) if the log does not exist."""

    def state(self, log: str) -> bytes:
        """Return the packed state of a log, as of its last committed control entry.

        Empty: it has none.
        """

    def due(self, now_ms: int) -> list[str]:
        """Return the logs whose state contains something that has expired."""

    def pending(self) -> list[tuple[str, int, str]]:
        """Return (log, seq, recipient) of direct messages not confirmed by the recipient's log.

        In the order of their logs, without reading entries. The recipient is empty if the table of
        direct messages does not contain it. A message is pending from its own commit to the commit
        after ``confirm``; a message confirmed just before a crash may be returned once more.

        Raises:
            StoreError: the partition cannot be read.
        """

    def confirm(self, delivered: list[tuple[str, int]]) -> None:
        """Record that direct messages are in their recipient's log; not while ``append`` runs."""

    def note_seen(self, seen: list[tuple[str, int]]) -> None:
        """Record when (ms) owners of inboxes were last connected, for the next commit."""

    def note_folds(self, folds: list[tuple[str, int, bytes]]) -> None:
        """Record (log, seq, packed state after control entries up to seq), for the next commit."""

    def prove(self) -> None:
        """Make the next commit write something in any case, to find out if that is possible."""

    def remove(self, log: str, upto: int, controls_upto: int) -> Removed:
        """Remove some of the entries of a log up to ``upto``, in a separate commit.

        At most as many as one step may (``removal``): call again until it removes none. Entries of
        kind *system* above ``controls_upto`` stay. Repeats of removed entries are still recognised.

        Raises:
            StoreError: as ``append``.
        """

    def refuse(self, reason: str) -> None:
        """Close it unchanged: its file is damaged. It stays closed until a start has checked it."""

    def close(self) -> None:
        """Close cleanly: the next start keeps every epoch (invariant "Epochs are segments")."""


class Reader(Protocol):
    """Reads the logs of a partition."""

    def head(self, log: str) -> Head:
        """Return the last committed entry of a log; (NO_EPOCH, 0) if the log does not exist.

        For a home that cannot open its partition for writing; otherwise it asks the partition.

        Raises:
            StoreError: the partition cannot be read.
        """

    def fold(self, log: str) -> tuple[int, bytes]:
        """Return the stored state of a log (``Partition.note_folds``): seq and bytes.

        (0, b"") if there is none.

        Raises:
            StoreError: the partition cannot be read.
        """

    def controls(self, log: str, after: int = 0) -> list[bytes]:
        """Return all packed entries of kind *system* above a seq.

        Raises:
            StoreError: the partition cannot be read.
        """

    def read_edited(
        self, log: str, seq: int, upto: int, shown: Callable[[bytes], bool]
    ) -> list[bytes]:
        """Return an entry and its last visible edit, packed; empty: there is no such entry.

        Args:
            log: its log.
            seq: of the entry.
            upto: edits up to this seq are examined, at most ``limits.EDITS_SHOWN_MAX``.
            shown: returns True for an edit that is visible and not erased.

        Raises:
            StoreError: the partition cannot be read.
        """

    def read_direct(self, log: str, peer: str, before: int, count: int, bytes_max: int) -> Page:
        """As ``read_back``, for an inbox: only messages to and from one user."""

    def place_at(self, log: str, peer: str, seq: int) -> Cursor | None:
        """Return the position, in the sender's inbox, of the message that an entry is a copy of.

        None: it is not a copy of a message from this peer.
        """

    def has_written(self, log: str, peer: str) -> bool:
        """Return True if an inbox contains a message from its owner to a peer.

        Raises:
            StoreError: the partition cannot be read.
        """

    def marks(self, log: str, after: str, count: int) -> list[tuple[str, bytes, int]]:
        """Return the read marks of an inbox's owner: (log or ``@peer``, epoch, seq) each.

        At most ``count``, in the order of names, above ``after``.

        Raises:
            StoreError: the partition cannot be read.
        """

    def mark(self, log: str, about: str) -> Cursor:
        """Return the read mark of an inbox's owner for a room, or ("@name") for a user's messages.

        (NO_EPOCH, 0): there is none.

        Raises:
            StoreError: the partition cannot be read.
        """

    def memberships_of_all(self, handle: str, count: int) -> list[tuple[str, bytes]]:
        """Return some (room, root) of roles of all accounts that a handle has had.

        Raises:
            StoreError: the partition cannot be read.
        """
        raise NotImplementedError

    def memberships(self, handle: str, root: bytes, after: str, count: int) -> list[str]:
        """Return the rooms in which an account has a role, including invitations.

        At most ``count``, in the order of names, above ``after``.

        Raises:
            StoreError: the partition cannot be read.
        """

    def owned(self, handle: str, root: bytes) -> int:
        """Return how many rooms an account owns.

        Raises:
            StoreError: the partition cannot be read.
        """

    def shares(self, handle: str, root: bytes, other: str, other_root: bytes) -> bool:
        """Return True if there is a room in which both accounts are permanent members.

        Raises:
            StoreError: the partition cannot be read.
        """

    def seen(self, log: str) -> int:
        """Return when (ms) the owner of an inbox was last connected; 0: unknown.

        Raises:
            StoreError: the partition cannot be read.
        """

    def names(self, prefix: str, after: str = "", count: int | None = None) -> list[str]:
        """Return the names of logs that begin with a prefix, in order, above ``after``.

        Args:
            prefix: ASCII, not empty.
            after: only names above it.
            count: maximum number; None: all.

        Raises:
            StoreError: the partition cannot be read.
        """

    def state(self, log: str) -> bytes:
        """As ``Partition.state``, at this moment.

        Raises:
            StoreError: the partition cannot be read.
        """

    def states(self, after: str, count: int, bytes_max: int) -> list[tuple[str, bytes, int]]:
        """Return (name, packed state, seq of the last entry) of rooms, in order of their names.

        Args:
            after: only names above it.
            count: maximum number.
            bytes_max: approximate limit for the states; at least one is returned, if there is any.

        Raises:
            StoreError: the partition cannot be read.
        """

    def read(
        self, log: str, after: int, upto: int, bytes_max: int, count: int | None = None
    ) -> Page:
        """Return entries of (after, upto], oldest first; at least one if there is any.

        Raises:
            StoreError: the partition cannot be read.
        """

    def read_back(self, log: str, before: int, count: int, bytes_max: int) -> Page:
        """Return the newest ``count`` entries below ``before``, ascending; at least one if any."""

    def floor(self, log: str) -> int:
        """Return the last removed entry of a log; 0: none was removed.

        Raises:
            StoreError: the partition cannot be read.
        """

    def floor_of_last(self, log: str, count: int, upto: int) -> int:
        """Return the seq after which the last ``count`` entries begin.

        Control entries are included.
        """

    def epoch_at(self, log: str, seq: int) -> bytes:
        """Return the epoch that a seq belongs to; NO_EPOCH for 0 in a log that begins after it."""

    def resume(self, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        """Find where a reader with this cursor continues (invariant "Epochs are segments").

        ``head`` is the last entry that this worker shows (H of invariant "One seam"). The result's
        ``after`` is above it if the reader comes from a worker that was further ahead; it then
        waits for the head.
        """
