"""The checker on handwritten histories: good ones pass, each bad one has its finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from relay.chat.entries import GapReason
from tests.torture.checker import Entry, Evidence, Fault, check
from tests.torture.effort import Effort
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

ROOM = "room"
OLD, NEW = "e1", "e2"


def entry(seq: int, sender: str, number: int, epoch: str = OLD) -> Entry:
    """An entry of the log at the end."""
    return Entry(epoch, seq, seq - 1, sender, number, number * 7)


def seen(found: Entry) -> Seen:
    """A reader got it."""
    return Seen(ROOM, *found)


LOG = [
    entry(1, "ann", 1),
    entry(2, "bob", 1),
    entry(3, "ann", 2),
    entry(4, "bob", 2),
]


@dataclass
class History:
    """A valid run; a test breaks one thing in it."""

    log: list[Entry] = field(default_factory=lambda: list(LOG))
    fetched: list[Entry] | None = None
    """None: what the log has."""
    ann: list[Record] = field(
        default_factory=lambda: [
            Sent(ROOM, 1, 7),
            Acked(ROOM, 1, OLD, 1),
            Sent(ROOM, 2, 14),
            Acked(ROOM, 2, OLD, 3),
        ]
    )
    bob: list[Record] = field(
        default_factory=lambda: [Sent(ROOM, 1, 7), Sent(ROOM, 2, 14), Acked(ROOM, 1, OLD, 2)]
    )
    reader: list[Record] = field(
        default_factory=lambda: [Began(ROOM, "", 0), *map(seen, LOG)],
    )

    def faults(self) -> list[Fault]:
        """Return what the checker finds."""
        fetched = self.log if self.fetched is None else self.fetched
        evidence = Evidence(
            {ROOM: self.log},
            {ROOM: fetched},
            {"ann": self.ann, "bob": self.bob},
            {"r": self.reader},
        )
        return [finding.fault for finding in check(evidence)]


# --- good ones -----------------------------------------------------------------------------------
def test_a_good_history_passes() -> None:
    """Bob's second message is stored and not acknowledged: that is allowed."""
    assert History().faults() == []


def test_a_message_that_was_never_acknowledged_may_be_missing() -> None:
    """There is no guarantee for it."""
    history = History(log=LOG[:3], reader=[Began(ROOM, "", 0), *map(seen, LOG[:3])])
    assert history.faults() == []


def test_a_view_may_begin_late_and_end_early() -> None:
    """It is a part of the log; and a restarted reader continues where its file ends."""
    reader: list[Record] = [Began(ROOM, OLD, 1), seen(LOG[1]), Resumed(ROOM, OLD, 2), seen(LOG[2])]
    assert History(reader=reader).faults() == []


def test_a_gap_is_allowed_where_an_epoch_ended() -> None:
    """The reader was ahead of what was restored; its cursor goes back to the end of the epoch."""
    log = [*LOG[:3], entry(4, "bob", 2, NEW)]
    lost = Seen(ROOM, OLD, 4, 3, "ann", 3, 21)
    gap = Hole(ROOM, (OLD, 4), (OLD, 3), GapReason.EPOCH)
    history = History(log=log, ann=[*History().ann, Sent(ROOM, 3, 21)])
    history.reader = [Began(ROOM, "", 0), *map(seen, log[:3]), lost, gap, seen(log[3])]
    assert history.faults() == [Fault.NOT_IN_LOG], "a loss, but no reused seq, and no illegal gap"


# --- bad ones ------------------------------------------------------------------------------------
def _lose(history: History) -> None:
    history.log = [*LOG[:2], replace_prev(LOG[3], 2)]
    history.reader = [Began(ROOM, "", 0), *map(seen, history.log)]


def replace_prev(found: Entry, prev: int) -> Entry:
    """Return an entry with another prev."""
    return found._replace(prev=prev)


def _double(history: History) -> None:
    history.log.append(entry(5, "ann", 2))
    history.reader.append(seen(history.log[-1]))


def _invent(history: History) -> None:
    history.log[3] = history.log[3]._replace(digest=1)
    history.reader[4] = seen(history.log[3])


def _reorder(history: History) -> None:
    one, other = history.log[1], history.log[3]
    history.log[1] = one._replace(number=other.number, digest=other.digest)
    history.log[3] = other._replace(number=one.number, digest=one.digest)
    history.bob = [Sent(ROOM, 1, 7), Sent(ROOM, 2, 14)]
    history.reader = [Began(ROOM, "", 0), *map(seen, history.log)]


def _leave_out_one_in_between(history: History) -> None:
    history.bob = [Sent(ROOM, 1, 7), Sent(ROOM, 2, 14), Sent(ROOM, 3, 21)]
    history.log[3] = history.log[3]._replace(number=3, digest=21)
    history.reader = [Began(ROOM, "", 0), *map(seen, history.log)]


def _refuse(history: History) -> None:
    history.bob.append(Failed(ROOM, 2, "IdConflict"))


def _acknowledge_elsewhere(history: History) -> None:
    history.ann[3] = Acked(ROOM, 2, OLD, 4)


def _show_another_message(history: History) -> None:
    history.reader[2] = Seen(ROOM, OLD, 2, 1, "bob", 2, 14)


def _break_the_chain(history: History) -> None:
    history.log[2] = replace_prev(history.log[2], 1)
    history.reader[3] = seen(history.log[2])


def _go_on_with_an_old_epoch(history: History) -> None:
    history.log[2] = history.log[2]._replace(epoch=NEW)
    history.ann[3] = Acked(ROOM, 2, NEW, 3)
    history.reader[3] = seen(history.log[2])


def _fetch_less(history: History) -> None:
    history.fetched = LOG[:3]


def _fetch_another(history: History) -> None:
    history.fetched = [*LOG[:3], LOG[3]._replace(digest=1)]


def _show_what_is_not_stored(history: History) -> None:
    history.reader.append(Seen(ROOM, OLD, 5, 4, "bob", 3, 21))


def _skip(history: History) -> None:
    del history.reader[2]


def _skip_over_a_restart(history: History) -> None:
    history.reader[2] = Resumed(ROOM, OLD, 2)


def _repeat(history: History) -> None:
    history.reader.insert(3, history.reader[2])


def _swap(history: History) -> None:
    history.reader[2], history.reader[3] = history.reader[3], history.reader[2]


def _deliver_before_joined(history: History) -> None:
    del history.reader[0]


def _report_a_gap(history: History) -> None:
    history.reader[2] = Hole(ROOM, (OLD, 1), (OLD, 2), GapReason.RETENTION)


def _report_an_epoch_that_did_not_end(history: History) -> None:
    history.reader[2] = Hole(ROOM, (OLD, 1), (OLD, 2), GapReason.EPOCH)


def _report_a_gap_to_who_stands_in_the_ended_epoch(history: History) -> None:
    history.log = [*LOG, entry(5, "bob", 3, NEW)]
    history.reader[2] = Hole(ROOM, (OLD, 1), (OLD, 2), GapReason.EPOCH)


def _throw_out(history: History) -> None:
    history.reader.append(Lost("ALREADY_JOINED"))


def _heal_what_is_missing(history: History) -> None:
    history.reader.append(Totals(1, 0, 0, 1))


def _heal_what_comes_again(history: History) -> None:
    history.reader.append(Totals(1, 0, 1, 0))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_lose, Fault.LOST),
        (_double, Fault.DOUBLED),
        (_invent, Fault.INVENTED),
        (_reorder, Fault.REORDERED),
        (_leave_out_one_in_between, Fault.REORDERED),
        (_refuse, Fault.REFUSED),
        (_acknowledge_elsewhere, Fault.LOST),
        (_acknowledge_elsewhere, Fault.SEQ_REUSED),
        (_show_another_message, Fault.SEQ_REUSED),
        (_break_the_chain, Fault.LOG_BROKEN),
        (_go_on_with_an_old_epoch, Fault.LOG_BROKEN),
        (_fetch_less, Fault.LOG_DIFFERS),
        (_fetch_another, Fault.LOG_DIFFERS),
        (_show_what_is_not_stored, Fault.NOT_IN_LOG),
        (_skip, Fault.SKIPPED),
        (_skip_over_a_restart, Fault.SKIPPED),
        (_repeat, Fault.REPEATED),
        (_swap, Fault.SKIPPED),
        (_swap, Fault.REPEATED),
        (_deliver_before_joined, Fault.REPEATED),
        (_report_a_gap, Fault.GAP),
        (_report_an_epoch_that_did_not_end, Fault.GAP),
        (_report_a_gap_to_who_stands_in_the_ended_epoch, Fault.GAP),
        (_throw_out, Fault.THROWN_OUT),
        (_heal_what_is_missing, Fault.HEALED),
        (_heal_what_comes_again, Fault.HEALED),
    ],
)
def test_a_bad_history_is_named(spoil: Callable[[History], None], fault: Fault) -> None:
    """The violation is found."""
    history = History()
    spoil(history)
    assert fault in history.faults()


def test_a_run_that_did_too_little_proves_nothing() -> None:
    """Each count is compared with its minimum."""
    minimum = Effort(acknowledged=100, worker_kills=2)
    enough = Effort(acknowledged=100, worker_kills=3)
    assert enough.short_of(minimum) == []
    assert replace(enough, worker_kills=1).short_of(minimum) == [
        "worker_kills: 1, at least 2 expected"
    ]


# --- direct messages -----------------------------------------------------------------------------
PEOPLE = ("bob", "carol")
"""Carol gets the messages with an odd number."""


def direct_faults(carols: list[int], digests: dict[int, int] | None = None) -> set[Fault]:
    """Return the findings when ann has sent 1 to 5, and carol's inbox has these of her."""
    sent = {number: number * 7 for number in range(1, 6)}

    def inbox(numbers: list[int]) -> list[Entry]:
        control = Entry(OLD, 1, 0, "operator", 0, 1)
        copies = [
            Entry(OLD, seq, seq - 1, "ann", number, (digests or sent)[number])
            for seq, number in enumerate(numbers, 2)
        ]
        return [control, *copies]

    logs = {
        "@ann": [
            Entry(OLD, 1, 0, "ann", 0, 1),
            *[Entry(OLD, n + 1, n, "ann", n, digest) for n, digest in sent.items()],
        ],
        "@bob": [
            Entry(OLD, 1, 0, "bob", 0, 1),
            Entry(OLD, 2, 1, "ann", 2, 14),
            Entry(OLD, 3, 2, "ann", 4, 28),
        ],
        "@carol": inbox(carols),
    }
    history: list[Record] = [Sent("@ann", number, digest) for number, digest in sent.items()]
    evidence = Evidence(logs, logs, {"ann": history}, {}, PEOPLE)
    return {finding.fault for finding in check(evidence)}


@pytest.mark.parametrize(
    ("carols", "faults"),
    [
        ([1, 3, 5], set()),
        ([1, 5], {Fault.LOST}),
        ([], {Fault.LOST}),
        ([1, 3, 3, 5], {Fault.DOUBLED}),
        ([1, 5, 3], {Fault.REORDERED}),
        ([1, 2, 3, 5], {Fault.INVENTED}),
    ],
)
def test_copies_are_those_that_were_accepted(carols: list[int], faults: set[Fault]) -> None:
    """Once each, in order, and no others."""
    assert direct_faults(carols) == faults


def test_a_copy_says_what_was_accepted() -> None:
    """With the same content."""
    assert direct_faults([1, 3, 5], {1: 7, 3: 99, 5: 35}) == {Fault.INVENTED}


def _cut_copies(carols: list[tuple[str, int]], lost: int) -> set[Fault]:
    """Return the findings when the power was cut, and ann's inbox has 1 to ``lost`` from
    before it.
    """
    sent = range(1, 6)

    def logged(person: str, entries: list[tuple[str, int]]) -> list[Entry]:
        control = Entry(OLD, 1, 0, person, 0, 1)
        return [
            control,
            *[
                Entry(epoch, seq, seq - 1, "ann", number, number * 7)
                for seq, (epoch, number) in enumerate(entries, 2)
            ],
        ]

    logs = {
        "@ann": logged("ann", [(OLD if number <= lost else NEW, number) for number in sent]),
        "@bob": logged("bob", [(OLD, 2), (NEW, 4)]),
        "@carol": logged("carol", carols),
    }
    history: list[Record] = [Sent("@ann", number, number * 7) for number in sent]
    evidence = Evidence(logs, logs, {"ann": history}, {}, PEOPLE, may_lose=True)
    return {finding.fault for finding in check(evidence)}


@pytest.mark.parametrize(
    ("carols", "lost", "faults"),
    [
        ([(OLD, 1), (OLD, 3), (NEW, 3), (NEW, 5)], 2, set()),
        ([(OLD, 1), (OLD, 3), (NEW, 3), (NEW, 5)], 3, {Fault.DOUBLED}),
        ([(OLD, 1), (OLD, 3), (OLD, 3), (NEW, 5)], 2, {Fault.DOUBLED}),
        ([(OLD, 1), (NEW, 3), (NEW, 3), (NEW, 5)], 2, {Fault.DOUBLED}),
    ],
)
def test_a_copy_comes_twice_only_where_the_power_took_the_first(
    carols: list[tuple[str, int]], lost: int, faults: set[Fault]
) -> None:
    """After the cut, and for messages that the sender's inbox has lost."""
    assert _cut_copies(carols, lost) == faults
