"""The checker: finds the violated guarantees in the histories of the clients of a run.

Pure functions. Everything is compared with the log at the end, which is read twice (from the store,
and by a new client):

- every acknowledged message is in it exactly once, at the acknowledged place;
- it holds nothing that was not sent, and each sender's messages in their order;
- every reader's view is a part of it, in order, without repeats, complete from its first to its
  last entry except for reported gaps;
- no (epoch, seq) ever had two messages, for any client;
- every direct message in its sender's inbox is in its recipient's inbox: once, in order;
- gaps are reported only to a reader whose cursor is behind the end of an ended epoch (invariants
  "Epochs are segments" and "Gaps are rare").

Where the power was cut under durability "process", ends of ended epochs may be lost, and nothing
else: messages acknowledged or received there, and copies of direct messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from relay.chat.entries import GapReason
from tests.torture.programs import recipient
from tests.torture.records import (
    Acked,
    Began,
    Failed,
    Hole,
    Lost,
    Record,
    Resumed,
    Seen,
    Sent,
    Totals,
)


class Fault(Enum):
    """A violation."""

    LOST = "an acknowledged message is not in the log"
    DOUBLED = "a message is in the log more than once"
    INVENTED = "the log has a message that nobody sent"
    REORDERED = "a sender's messages are not in its order, or one of them is missing in between"
    REFUSED = "a message was refused for good"
    SEQ_REUSED = "one (epoch, seq) meant two messages"
    LOG_BROKEN = "the log is not one sequence"
    LOG_DIFFERS = "the log read by a client differs from the store"
    NOT_IN_LOG = "a reader got an entry that is not in the log"
    SKIPPED = "a reader missed entries, and was not told"
    REPEATED = "a reader got an entry again, or out of order"
    GAP = "a reader was told of a gap where nothing was lost"
    NOT_AT_HEAD = "a connected reader did not reach the head"
    NEVER_BACK = "a client did not come back, or its sends did not end"
    HEALED = (
        "a reader had to join again, or to drop entries: the server had shown them out of place"
    )
    THROWN_OUT = "a client was ended by the server"
    SERVER_ERROR = "the server logged a bug of its own"


class Finding(NamedTuple):
    """One violation, and where it is."""

    fault: Fault
    text: str

    def __str__(self) -> str:
        return f"{self.fault.name}: {self.fault.value}: {self.text}"


class Place(NamedTuple):
    """(epoch, seq)."""

    epoch: str
    seq: int


class Entry(NamedTuple):
    """An entry of the log as it is at the end."""

    epoch: str
    seq: int
    prev: int
    sender: str
    number: int
    """0: an entry that changes the room."""
    digest: int


class Id(NamedTuple):
    """The identity of a message."""

    sender: str
    number: int
    digest: int


@dataclass(slots=True)
class Evidence:
    """Everything known at the end of a run. Histories may be iterators, read once."""

    stored: Mapping[str, list[Entry]]
    """By log, from the store."""
    fetched: Mapping[str, list[Entry]]
    """By log, read by a fresh client from the beginning."""
    senders: Mapping[str, Iterable[Record]]
    readers: Mapping[str, Iterable[Record]]
    people: Sequence[str] = ()
    """The users to whom the senders write, in turn (``programs.recipient``)."""
    may_lose: bool = False
    """The power was cut, and acknowledged messages need not have survived that."""


class Log:
    """One log at the end, indexed."""

    def __init__(self, name: str, entries: list[Entry], *, may_lose: bool = False) -> None:
        self.name = name
        self.entries = entries
        self.may_lose = may_lose
        self.ends = {e.epoch: e.seq for e in entries}
        self.at = {Place(e.epoch, e.seq): index for index, e in enumerate(entries)}
        self.epochs = list(dict.fromkeys(e.epoch for e in entries))
        self.ids = {place: self.message_at(place) for place in self.at}
        """The message at each place, for any client: grows with the clients' records."""

    def may_have_lost(self, place: Place) -> bool:
        """Return whether an entry may be lost: after the end of an epoch that has ended."""
        ended = place.epoch not in self.epochs[-1:]
        return self.may_lose and ended and place.seq > self.ends.get(place.epoch, 0)

    def message_at(self, place: Place) -> Id | None:
        """Return the message at a place of the log at the end."""
        index = self.at.get(place)
        if index is None:
            return None
        entry = self.entries[index]
        return Id(entry.sender, entry.number, entry.digest)


def check(evidence: Evidence) -> list[Finding]:
    """Return every violation."""
    findings: list[Finding] = []
    logs = {
        name: Log(name, entries, may_lose=evidence.may_lose)
        for name, entries in evidence.stored.items()
    }
    for log in logs.values():
        findings += check_log(log)
        findings += compare(log, evidence.fetched.get(log.name, []))
    sent: dict[str, dict[tuple[str, int], int]] = {}
    lost: dict[str, set[tuple[str, int]]] = {}
    for sender, history in evidence.senders.items():
        digests = sent[sender] = {}
        gone = lost[sender] = set()
        findings += check_sender(sender, history, logs, digests, gone)
    inboxes = {f"@{name}" for name in evidence.people}
    for log in logs.values():
        if log.name not in inboxes:
            findings += check_contents(log, sent, lost)
    for person in evidence.people:
        findings += check_copies(person, evidence.people, logs, sent)
    for reader, history in evidence.readers.items():
        findings += check_reader(reader, history, logs)
    return findings


# --- the log itself ------------------------------------------------------------------------------
def check_log(log: Log) -> Iterator[Finding]:
    """One sequence: prev is the entry before, sequence numbers ascend, an ended epoch stays
    ended.
    """
    before = Entry("", 0, 0, "", 0, 0)
    places: set[Place] = set()
    for entry in log.entries:
        place = Place(entry.epoch, entry.seq)
        if place in places:
            yield Finding(Fault.SEQ_REUSED, f"{log.name} {place}: twice in the log")
        places.add(place)
        if entry.prev != before.seq or entry.seq <= before.seq:
            yield Finding(Fault.LOG_BROKEN, f"{log.name}: {entry} after {before}")
        before = entry
    changes = sum(a.epoch != b.epoch for a, b in zip(log.entries, log.entries[1:], strict=False))
    if changes >= len(log.epochs) > 0:
        yield Finding(Fault.LOG_BROKEN, f"{log.name}: an epoch that had ended goes on")


def compare(log: Log, fetched: list[Entry]) -> Iterator[Finding]:
    """The log read by a client equals the log in the store."""
    if fetched == log.entries:
        return
    for index, (one, other) in enumerate(zip(log.entries, fetched, strict=False)):
        if one != other:
            yield Finding(Fault.LOG_DIFFERS, f"{log.name}[{index}]: {one} != {other}")
            return
    sizes = f"{len(log.entries)} entries, {len(fetched)} fetched"
    yield Finding(Fault.LOG_DIFFERS, f"{log.name}: {sizes}")


def check_contents(
    log: Log,
    sent: Mapping[str, Mapping[tuple[str, int], int]],
    lost: Mapping[str, set[tuple[str, int]]],
) -> Iterator[Finding]:
    """Each message was sent, occurs once, and follows the sender's earlier ones."""
    messages = [entry for entry in log.entries if entry.number]
    counts = Counter((entry.sender, entry.number) for entry in messages)
    last: dict[str, int] = {}
    for entry in messages:
        sender, number = entry.sender, entry.number
        if number == 0:
            continue  # written by the server
        text = f"{log.name} ({entry.epoch}, {entry.seq}): {sender} {number}"
        if sent.get(sender, {}).get((log.name, number)) != entry.digest:
            yield Finding(Fault.INVENTED, text)
        expected = last.get(sender, 0) + 1
        while (log.name, expected) in lost.get(sender, ()):
            expected += 1
        if number != expected and counts[sender, number] == 1:
            yield Finding(Fault.REORDERED, f"{text}, expected {expected}")
        last[sender] = max(number, last.get(sender, 0))
    for (sender, number), count in counts.items():
        if count > 1 and number:
            yield Finding(Fault.DOUBLED, f"{log.name}: {sender} {number}: {count} times")


def check_copies(
    person: str,
    people: Sequence[str],
    logs: Mapping[str, Log],
    sent: Mapping[str, Mapping[tuple[str, int], int]],
) -> Iterator[Finding]:
    """Every copy in a sender's inbox is in the recipient's inbox: once, in order."""
    inbox = logs[f"@{person}"]
    for log in logs.values():
        sender = log.name[1:]
        if not log.name.startswith("@") or sender in people:
            continue
        wanted = {
            entry.number: entry.digest
            for entry in log.entries
            if entry.number and recipient(people, entry.number) == person
        }
        found = [entry for entry in inbox.entries if entry.sender == sender and entry.number]
        if inbox.may_lose:
            found = _delivered_once(found, log)
        numbers = [entry.number for entry in found]
        if inbox.may_lose:  # the sender's inbox may have lost what was delivered, too
            wanted = {
                number: digest
                for (name, number), digest in sent.get(sender, {}).items()
                if name == log.name
                and number in {*wanted, *numbers}
                and recipient(people, number) == person
            }
        lost = _lost_copies(found, inbox, max(wanted, default=0))
        for number in wanted.keys() - set(numbers) - lost:
            yield Finding(Fault.LOST, f"{inbox.name}: {sender} {number}: accepted, not delivered")
        for number, count in Counter(numbers).items():
            if count > 1:
                yield Finding(Fault.DOUBLED, f"{inbox.name}: {sender} {number}: {count} times")
        if numbers != sorted(numbers):
            yield Finding(Fault.REORDERED, f"{inbox.name}: {sender}: {numbers}")
        for entry in found:
            if wanted.get(entry.number) != entry.digest:
                yield Finding(Fault.INVENTED, f"{inbox.name}: {sender} {entry.number}")


def _delivered_once(found: list[Entry], origin: Log) -> list[Entry]:
    """Leave out copies that come twice because the power cut took the sender's inbox only.

    The sender had no acknowledgement, and sent the message again; for its inbox it is new. So the
    copy comes again after a cut, in another epoch, and the sender's inbox does not have it in an
    earlier one.
    """
    once = {e.number for e in origin.entries if e.epoch in origin.epochs[:1]}
    last: dict[int, Entry] = {}
    kept = []
    for entry in found:
        before = last.get(entry.number)
        last[entry.number] = entry
        excused = (
            before is not None
            and before.digest == entry.digest
            and before.epoch != entry.epoch
            and entry.number not in once
        )
        if not excused:
            kept.append(entry)
    return kept


def _lost_copies(found: list[Entry], inbox: Log, last: int) -> set[int]:
    """Return which of a sender's copies may be lost: those between two epochs of an inbox."""
    lost: set[int] = set()
    if not inbox.may_lose:
        return lost
    before = 0
    for epoch in inbox.epochs:
        numbers = [entry.number for entry in found if entry.epoch == epoch]
        if epoch != inbox.epochs[0]:
            lost |= set(range(before + 1, min(numbers, default=last + 1)))
        before = max(numbers, default=before)
    return lost


# --- senders -------------------------------------------------------------------------------------
def check_sender(
    sender: str,
    history: Iterable[Record],
    logs: Mapping[str, Log],
    digests: dict[tuple[str, int], int],
    lost: set[tuple[str, int]],
) -> Iterator[Finding]:
    """Every acknowledged message is at its acknowledged place.

    Fills ``digests``, and ``lost`` with what may be lost.
    """
    for record in history:
        match record:
            case Sent(log=name, number=number, digest=digest):
                digests[name, number] = digest
            case Acked(log=name, number=number, epoch=epoch, seq=seq):
                place = Place(epoch, seq)
                message = Id(sender, number, digests.get((name, number), 0))
                log = logs.get(name)
                if log is not None and log.may_have_lost(place):
                    lost.add((name, number))
                elif log is None or log.message_at(place) != message:
                    yield Finding(Fault.LOST, f"{name} {tuple(place)}: {sender} {number}")
                if log is not None:
                    yield from _means(log, place, message, f"acknowledged to {sender}")
            case Failed(log=name, number=number, why=why):
                if name in logs and logs[name].may_lose and why.startswith("UnknownOutcome"):
                    lost.add((name, number))  # its producer is lost as well
                    continue
                yield Finding(Fault.REFUSED, f"{name}: {sender} {number}: {why}")
            case Lost(why=why):
                yield Finding(Fault.THROWN_OUT, f"{sender}: {why}")
            case _:
                pass


def _means(log: Log, place: Place, message: Id, who: str) -> Iterator[Finding]:
    """Check that no client got another message at a place."""
    known = log.ids.setdefault(place, message)
    if known != message:
        yield Finding(Fault.SEQ_REUSED, f"{log.name} {place}: {known}, and {message} {who}")


# --- readers -------------------------------------------------------------------------------------
@dataclass(slots=True)
class View:
    """The position of one reader in one log."""

    place: Place
    index: int
    """Of the next entry, in the log at the end."""
    lost: bool = False
    """True after an entry that is not in the log: the position of the next one is not known."""


@dataclass(slots=True)
class Reader:
    """Checks one reader's history, record by record."""

    name: str
    logs: Mapping[str, Log]
    views: dict[str, View] = field(default_factory=dict)

    def check(self, record: Record) -> Iterator[Finding]:
        """Take the next record."""
        match record:
            case Seen():
                yield from self._seen(record)
            case Hole():
                yield from self._hole(record)
            case Began(log=name, epoch=epoch, seq=seq):
                self._stand(name, Place(epoch, seq))
            case Resumed(log=name, epoch=epoch, seq=seq):
                view = self.views.get(name)
                if view is None or view.place != Place(epoch, seq):
                    yield self._finding(Fault.SKIPPED, name, f"resumed at {(epoch, seq)}")
            case Lost(why=why):
                yield Finding(Fault.THROWN_OUT, f"{self.name}: {why}")
            case Totals(repeats=repeats, rejoins=rejoins) if repeats or rejoins:
                text = f"{self.name}: {rejoins} rejoins, {repeats} entries came again"
                yield Finding(Fault.HEALED, text)
            case _:
                pass

    def _finding(self, fault: Fault, log: str, text: str) -> Finding:
        view = self.views.get(log)
        place = "nowhere" if view is None else f"at {tuple(view.place)}"
        return Finding(fault, f"{self.name} in {log}, {place}: {text}")

    def _stand(self, name: str, place: Place) -> None:
        """Set the position after a place."""
        log = self.logs.get(name)
        index = 0 if log is None or place.seq == 0 else log.at.get(place, -1) + 1
        self.views[name] = View(place, index, lost=place.seq > 0 and index == 0)

    def _seen(self, seen: Seen) -> Iterator[Finding]:
        log, view = self.logs.get(seen.log), self.views.get(seen.log)
        place = Place(seen.epoch, seen.seq)
        if view is None:
            yield self._finding(Fault.REPEATED, seen.log, f"{seen} before it followed the log")
            return
        index = None if log is None else log.at.get(place)
        if log is not None:
            message = Id(seen.sender, seen.number, seen.digest)
            yield from _means(log, place, message, f"to {self.name}")
        if log is None or index is None:
            if log is None or not log.may_have_lost(place):
                yield self._finding(Fault.NOT_IN_LOG, seen.log, f"got {seen}")
            view.place, view.lost = place, True
            return
        if not view.lost and index < view.index:
            yield self._finding(Fault.REPEATED, seen.log, f"got {seen}")
            return
        if not view.lost and index > view.index:
            yield self._finding(Fault.SKIPPED, seen.log, f"got {seen}")
        elif seen.prev != log.entries[index].prev:
            yield self._finding(Fault.LOG_DIFFERS, seen.log, f"got {seen}")
        view.place, view.index, view.lost = place, index + 1, False

    def _hole(self, hole: Hole) -> Iterator[Finding]:
        log = self.logs.get(hole.log)
        view = self.views.get(hole.log)
        epochs = [] if log is None else log.epochs
        # Invariant "Epochs are segments": a reader at an entry that still exists continues from it,
        # whatever epoch began.
        stands = view is not None and not view.lost
        ended = hole.reason == GapReason.EPOCH and len(epochs) > 1
        if log is not None and log.may_lose:
            ended = ended or hole.reason == GapReason.AHEAD  # nothing was appended since
        if not ended or stands:
            yield self._finding(Fault.GAP, hole.log, f"told {hole}")
        self._stand(hole.log, Place(*hole.end))


def check_reader(
    reader: str, history: Iterable[Record], logs: Mapping[str, Log]
) -> Iterator[Finding]:
    """In order, without repeats, complete except for reported gaps."""
    checking = Reader(reader, logs)
    for record in history:
        yield from checking.check(record)
