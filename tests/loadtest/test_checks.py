from __future__ import annotations

import pytest

from loadtest import checks
from loadtest.bodies import CONTENT_TYPE, Body, pack_body
from relay.chat.entries import NO_EPOCH, Cursor, GapReason
from relay.client.events import Gap, Message

EPOCH = b"epoch--1"
ALICE, BOB = b"alice---", b"bob-----"


def entry(seq: int, number: int, *, prev: int | None = None, who: bytes = ALICE) -> Message:
    body = pack_body(Body(who, number, 0, b"clock---"), 60)
    before = seq - 1 if prev is None else prev
    return Message("room", EPOCH, seq, before, 0, "sender", b"", who, number, 0, CONTENT_TYPE, body)


@pytest.fixture
def check() -> checks.LogCheck:
    check = checks.LogCheck("room", Cursor(NO_EPOCH, 0))
    check.entry(entry(1, 1))
    check.entry(entry(2, 1, who=BOB))
    return check


def test_good_entries_pass_with_holes_in_the_log(check: checks.LogCheck) -> None:
    assert check.entry(entry(3, 2)) is not None
    assert check.entry(entry(9, 3, prev=3)) is not None
    assert check.seq == 9


def test_a_strangers_message_passes(check: checks.LogCheck) -> None:
    assert check.entry(entry(3, 2)._replace(body=b"hello")) is None


@pytest.mark.parametrize(
    ("wrong", "violation"),
    [
        (entry(4, 2, prev=3), checks.Missing),  # the entry before it did not come
        (entry(3, 3), checks.Missing),  # the log hides that one of alice's is missing
        (entry(2, 2, prev=1), checks.Doubled),  # an entry again
        (entry(1, 2, prev=0), checks.Doubled),  # an old entry
        (entry(3, 1), checks.Doubled),  # a message stored again
        (entry(3, 2)._replace(body=entry(3, 2).body[:-1] + b"!"), checks.Damaged),
    ],
)
def test_a_fault_is_found_and_counts_once(
    check: checks.LogCheck, wrong: Message, violation: type[checks.Violation]
) -> None:
    with pytest.raises(violation):
        check.entry(wrong)
    check.entry(entry(check.seq + 1, check.numbers[ALICE] + 1))
    check.entry(entry(check.seq + 1, 2, who=BOB))


def test_a_gap_is_a_violation_and_the_check_goes_on_behind_it(check: checks.LogCheck) -> None:
    gap = Gap("room", Cursor(EPOCH, 2), Cursor(EPOCH, 10), GapReason.RETENTION)
    with pytest.raises(checks.GapReported):
        check.gap(gap)
    check.entry(entry(11, 9))


class TestSends:
    def test_acknowledgement_and_echo_agree_in_any_order(self) -> None:
        sends = checks.SendCheck()
        sends.acked("room", 1, 5, following=True)
        assert sends.awaited == {("room", 1): 5}
        sends.echoed("room", 1, 5)
        sends.echoed("room", 2, 6)
        sends.acked("room", 2, 6, following=True)
        sends.acked("other", 1, 1, following=False)
        assert not sends.awaited
        assert sends.acknowledged == 3

    def test_another_place_than_acknowledged(self) -> None:
        sends = checks.SendCheck()
        sends.acked("room", 1, 5, following=True)
        with pytest.raises(checks.Contradiction):
            sends.echoed("room", 1, 6)
        sends.echoed("room", 2, 7)
        with pytest.raises(checks.Contradiction):
            sends.acked("room", 2, 8, following=True)

    def test_acknowledged_out_of_order(self) -> None:
        sends = checks.SendCheck()
        sends.acked("room", 1, 5, following=False)
        with pytest.raises(checks.Contradiction):
            sends.acked("room", 2, 5, following=False)

    def test_of_a_log_that_was_left_nothing_is_awaited(self) -> None:
        sends = checks.SendCheck()
        sends.acked("room", 1, 5, following=True)
        sends.acked("other", 1, 5, following=True)
        sends.left("room")
        assert sends.awaited == {("other", 1): 5}
