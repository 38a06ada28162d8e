"""What a backend of logs must do: ``sqlite`` is the one there is.

Any other must pass tests/conformance/log_contract.py, too.

A *partition* is the unit of writing: it has one writer process (invariant "One writer per
partition") and holds many logs. A *reader* may live in any process and sees what is committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from relay.chat.entries import Cursor, GapInfo, Head, Submission
from relay.chat.rooms.refusal import Refused
from relay.store.read_budget import ReadBudget


class Stored(NamedTuple):
    """Committed now. ``packed`` is the ENTRY as store, bus and members all carry it."""

    epoch: bytes
    seq: int
    prev: int
    packed: bytes


class Repeated(NamedTuple):
    """Committed before, by the same id and with the same content. ``seq`` 0: no longer kept."""

    epoch: bytes
    seq: int


class IdConflict(NamedTuple):
    """The id was used for another content, as ``seq``; 0: too long ago to look what it was."""

    seq: int


class Expected(NamedTuple):
    """A counter was skipped: the producer must go on with this one."""

    counter: int


class UnknownOutcome(NamedTuple):
    """The producer's record is gone (30 days), so whether the message was stored is not known."""


class Began(NamedTuple):
    """Committed now, and before it, in the same commit, the entry that its log begins with."""

    epoch: bytes
    seq: int
    prev: int
    packed: bytes
    first: Stored


class Denied(NamedTuple):
    """Its sender may not: by the state of the log when its turn came."""

    refused: Refused


class Forbidden(NamedTuple):
    """A new one that is not stored: who sends it may not, or it is about nothing that is there."""

    code: int
    """An ErrorCode of the protocol."""


class LogRefused(NamedTuple):
    """This one cannot be stored, and sending it again does not help; those beside it are stored."""

    reason: str
    """For the operator's log and the sender: what is wrong with the log or the message."""
    limit: int = 0
    """That was reached; 0: none that a sender can be told."""


Outcome = (
    Stored
    | Began
    | Repeated
    | IdConflict
    | Expected
    | UnknownOutcome
    | Denied
    | Forbidden
    | LogRefused
)


class Page(NamedTuple):
    """Rows in ascending order, each (seq, packed ENTRY). ``end``: nothing lies beyond them."""

    rows: list[tuple[int, bytes]]
    end: bool


class ResumePoint(NamedTuple):
    """Where a reader goes on: entries with a seq above ``after``; a gap to report before them."""

    after: int
    gap: GapInfo | None


class Removed(NamedTuple):
    """What one step has removed."""

    floor: int
    """Where the log begins now: entries up to this one are no longer kept."""
    entries: int
    bytes: int


class Partition(Protocol):
    """The one writer of a partition."""

    @property
    def held(self) -> bool:
        """True while a checkpoint asks that no commit begins: one that does waits for it."""

    @property
    def checkpointing(self) -> bool:
        """True while a checkpoint runs: it must not be closed."""

    def append(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome]:
        """Store a batch in one commit and return one outcome for each, in order.

        With a budget that is used up, or a copy about another one of the batch, the outcomes are
        those of the first submissions only, of one at least; the others were not looked at, and the
        caller gives them again. Returns only after the commit. A batch that raises is stored not at
        all. What is wrong with one submission is its own outcome and never raises.

        Raises:
            StoreFull: no space.
            StoreError: anything else; the next call may succeed.
        """

    def in_use(self, log: str) -> bool:
        """Tell whether a log is at hand: appending to it needs no look at the file."""

    def head(self, log: str) -> Head:
        """Return the last committed entry of a log; (NO_EPOCH, 0) for one that does not exist."""

    def state(self, log: str) -> bytes:
        """Return the packed state of a log, as of its last committed control entry.

        Empty: it has none.
        """

    def due(self, now_ms: int) -> list[str]:
        """Return the logs in whose state something has an end that is over."""

    def pending(self) -> list[tuple[str, int, str]]:
        """Return (log, seq, to whom) of the direct messages that no recipient's log has confirmed.

        In the order of their logs; no entry is read for it. To whom is empty should the table of
        direct messages not have it. One is pending from its own commit to the commit after
        ``confirm``: what is confirmed just before a crash may be returned once more.

        Raises:
            StoreError: the partition cannot be read.
        """

    def confirm(self, delivered: list[tuple[str, int]]) -> None:
        """Note direct messages that are in their recipient's log; not while ``append`` runs."""

    def note_seen(self, seen: list[tuple[str, int]]) -> None:
        """Note when (ms) owners of inboxes were last here, for the next commit, as ``confirm``."""

    def note_folds(self, folds: list[tuple[str, int, bytes]]) -> None:
        """Note (log, seq, packed) what the control entries of a log up to seq make: likewise."""

    def prove(self) -> None:
        """Have the next commit write something, whatever else is in it: to find out if it can."""

    def remove(self, log: str, upto: int, controls_upto: int) -> Removed:
        """Remove some of the entries of a log up to ``upto``, in a commit of its own.

        As many as one step may (``removal``): call again until it removes none. Entries of kind
        *system* above ``controls_upto`` stay. Repeats of what was removed are still repeats.

        Raises:
            StoreError: as ``append``.
        """

    def refuse(self, reason: str) -> None:
        """Close it as it is, for its file was found damaged: until a start has checked it."""

    def close(self) -> None:
        """Close cleanly: the next start keeps every epoch (invariant "Epochs are segments")."""


class Reader(Protocol):
    """Reads the logs of a partition."""

    def head(self, log: str) -> Head:
        """Return the last committed entry of a log; (NO_EPOCH, 0) for one that does not exist.

        For a home that cannot open its partition for writing: it asks the partition otherwise.

        Raises:
            StoreError: the partition cannot be read.
        """

    def fold(self, log: str) -> tuple[int, bytes]:
        """Return what was noted of a log (``Partition.note_folds``): seq and bytes.

        (0, b""): nothing was.

        Raises:
            StoreError: the partition cannot be read.
        """

    def controls(self, log: str, after: int = 0) -> list[bytes]:
        """Return the packed entries of kind *system* above a seq, all of them.

        Raises:
            StoreError: the partition cannot be read.
        """

    def read_edited(
        self, log: str, seq: int, upto: int, shown: Callable[[bytes], bool]
    ) -> list[bytes]:
        """Return an entry and its last edit that is shown, packed; empty: there is no such entry.

        Args:
            log: where.
            seq: of the entry.
            upto: edits up to this one are looked at, and ``limits.EDITS_SHOWN_MAX`` at most.
            shown: tells whether an edit is shown, and not erased.

        Raises:
            StoreError: the partition cannot be read.
        """

    def read_direct(self, log: str, peer: str, before: int, count: int, bytes_max: int) -> Page:
        """As ``read_back``, of an inbox the messages to and from one person alone."""

    def place_at(self, log: str, peer: str, seq: int) -> Cursor | None:
        """Return where the message that this entry is a copy of is in its sender's inbox.

        None: it is no copy of a message of this peer.
        """

    def has_written(self, log: str, peer: str) -> bool:
        """Tell whether an inbox has a message that its owner has sent to somebody.

        Raises:
            StoreError: the partition cannot be read.
        """

    def marks(self, log: str, after: str, count: int) -> list[tuple[str, bytes, int]]:
        """Return up to where the owner of an inbox has read: (log or ``@peer``, epoch, seq) each.

        In the order of the names above ``after``, so many at most.

        Raises:
            StoreError: the partition cannot be read.
        """

    def mark(self, log: str, about: str) -> Cursor:
        """Return up to where the owner of an inbox has read a room, or ("@name") somebody's words.

        (NO_EPOCH, 0): it was never noted.

        Raises:
            StoreError: the partition cannot be read.
        """

    def memberships_of_all(self, handle: str, count: int) -> list[tuple[str, bytes]]:
        """Return (room, root) of the roles of all accounts that a handle has had, some of them.

        Raises:
            StoreError: the partition cannot be read.
        """
        raise NotImplementedError

    def memberships(self, handle: str, root: bytes, after: str, count: int) -> list[str]:
        """Return the rooms in which an account has a role, invited ones included.

        In the order of the names above ``after``, so many at most.

        Raises:
            StoreError: the partition cannot be read.
        """

    def owned(self, handle: str, root: bytes) -> int:
        """Return how many rooms an account owns.

        Raises:
            StoreError: the partition cannot be read.
        """

    def shares(self, handle: str, root: bytes, other: str, other_root: bytes) -> bool:
        """Tell whether there is a room in which both accounts are lasting members.

        Raises:
            StoreError: the partition cannot be read.
        """

    def seen(self, log: str) -> int:
        """Return when (ms) the owner of an inbox was last here; 0: it is not known.

        Raises:
            StoreError: the partition cannot be read.
        """

    def names(self, prefix: str, after: str = "", count: int | None = None) -> list[str]:
        """Return the names of logs that begin with a prefix, in order, from behind ``after`` on.

        Args:
            prefix: ASCII, not empty.
            after: only names above it.
            count: so many at most; None: all.

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
            count: so many at most.
            bytes_max: of their states, about; one at least, if there is any.

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
        """Return the last entry of a log that was removed; 0: none was.

        Raises:
            StoreError: the partition cannot be read.
        """

    def floor_of_last(self, log: str, count: int, upto: int) -> int:
        """Return the seq after which the last ``count`` entries begin; control ones come along."""

    def epoch_at(self, log: str, seq: int) -> bytes:
        """Return the epoch in which a seq lies; NO_EPOCH for 0 in a log that begins after it."""

    def resume(self, log: str, cursor: Cursor, head: Head) -> ResumePoint:
        """Find where a reader with this cursor goes on (invariant "Epochs are segments").

        ``head`` is the last entry that this worker shows (H of invariant "One seam"). ``after`` of
        the answer is above it when the reader comes from a worker that was further: it then waits
        for the head.
        """
