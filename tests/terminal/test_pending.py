"""Which pending lines are marked."""

from __future__ import annotations

from relay.terminal.pending import Pending
from relay.terminal.view import notice_line
from tests.support.cluster import until


class Marks:
    """The lines that are marked now, and the number of updates."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.told = 0

    def __call__(self, waiting: list[str]) -> None:
        self.now = waiting
        self.told += 1


async def test_what_waits_is_marked_until_it_does_no_more() -> None:
    marks = Marks()
    pending = Pending(marks, after_s=0)
    one, two = pending.begin("one"), pending.begin("two")
    assert not marks.told, "not before it has waited"
    await until(lambda: marks.now == ["one", "two"], "both are marked, in order")
    one()
    assert marks.now == ["two"]
    two()
    assert marks.now == []


async def test_what_is_accepted_soon_is_never_marked() -> None:
    """Nor when its timer fires later."""
    marks = Marks()
    pending = Pending(marks, after_s=0)
    pending.begin("one")()
    last = pending.begin("last")
    await until(lambda: marks.told, "a later one is marked")
    assert marks.now == ["last"]
    last()
    last()  # a second time has no effect
    assert marks.told == 2


async def test_the_same_words_twice_are_two_lines() -> None:
    marks = Marks()
    pending = Pending(marks, after_s=0)
    pending.begin("yes")
    done = pending.begin("yes")
    await until(lambda: marks.now == ["yes", "yes"], "both are marked")
    done()
    assert marks.now == ["yes"]


def test_a_mark_is_one_line() -> None:
    """For a paste, a long line, and control characters."""
    assert notice_line("one\ntwo", 40) == "-!- one two"
    assert notice_line("words " * 20, 20) == "-!- words words…"
    assert len(notice_line("x" * 500, 30)) <= 30
    assert notice_line("a\x1b[2J", 40) == "-!- a\\u{1b}[2J"
