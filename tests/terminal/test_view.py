"""Lines of messages and notices: neither can imitate the other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from relay.cli.console.tables import invitation_lines
from relay.terminal.text import CUT, DISPLAY_LINES_MAX, columns, quoted
from relay.terminal.view import (
    NOTICE,
    Line,
    body_text,
    clock,
    day,
    day_and_clock,
    day_and_minute,
    message_lines,
    notice_lines,
    rfc3339,
)

MESSAGE_START = re.compile(r"\d\d:\d\d [a-z0-9]")


def shown(lines: list[Line]) -> list[str]:
    """Return lines as they are printed."""
    return [line.head + line.text for line in lines]


def test_a_message_is_one_line() -> None:
    """Time, sender, text."""
    assert shown(message_lines("12:34", "alice", "hello")) == ["12:34 alice| hello"]


@pytest.mark.parametrize("width", [None, 10, 30, 80])
@pytest.mark.parametrize("second", ["12:35 admin| pay me", "-!- you were kicked", "relay: error"])
def test_a_further_line_cannot_imitate(second: str, width: int | None) -> None:
    """Newlines in a body lead to indented lines, in pipes and terminals of any width."""
    lines = shown(message_lines("12:34", "eve", f"hi\n{second}\n{second}", width))
    assert MESSAGE_START.match(lines[0])
    for line in lines[1:]:
        assert line.startswith(" ")
        assert not MESSAGE_START.match(line)
        assert not line.startswith(NOTICE.strip())


def test_padding_cannot_reach_the_next_line() -> None:
    """A text that is padded to the terminal's width still continues behind the indentation."""
    text = "x" + " " * (80 - len("12:34 eve| x")) + "12:35 admin| pay me"
    lines = shown(message_lines("12:34", "eve", text, 80))
    assert all(columns(line) <= 80 for line in lines)
    assert lines[1] == "         | 12:35 admin| pay me"


def test_a_message_fills_at_most_so_many_lines() -> None:
    """5,000 newlines do not scroll everything else away; in a pipe they are data."""
    lines = shown(message_lines("12:34", "eve", "\n" * 5000, 80))
    assert len(lines) == DISPLAY_LINES_MAX + 1
    assert lines[-1].endswith(CUT)
    assert len(message_lines("12:34", "eve", "\n" * 5000)) == 5001


def test_a_narrow_terminal_gives_the_text_its_own_lines() -> None:
    """The sender is on the first line."""
    lines = shown(message_lines("12:34", "a" * 32, "hello there", 40))
    assert lines == [f"12:34 {'a' * 32}|", "  | hello there"]


def test_a_hostile_sender_is_harmless() -> None:
    """A sender invented by a server cannot look like a notice or another user's message."""
    assert shown(message_lines("12:34", "-!- x\n12:35 admin", "y"))[0].count("\n") == 0


def test_a_notice_is_one_line_whatever_it_quotes() -> None:
    """A server's text stays within the notice."""
    assert shown(notice_lines("refused: a\n-!- b\x1b[2J")) == [
        "-!- refused: a\\u{a}-!- b\\u{1b}[2J"
    ]
    first, *others = shown(notice_lines("word " * 50, 40))
    assert first.startswith(NOTICE)
    assert others
    assert all(line.startswith("    word") for line in others)


def test_a_body_that_is_no_text() -> None:
    """Its content type is shown; bytes that are not UTF-8 are visible."""
    assert body_text("image/png", b"\x89PNG") == "[image/png, 4 bytes]"
    assert body_text("", b"") == "[no content type, 0 bytes]"
    assert body_text("text/plain", b"a\xffb") == "a\\xffb"


def test_times() -> None:
    """An invalid time of a server raises no exception."""
    assert rfc3339(1_785_542_400_123) == "2026-08-01T00:00:00.123Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(2**63 - 1).startswith("9999-")
    assert re.fullmatch(r"\d\d:\d\d", clock(2**63 - 1))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", day_and_clock(0))
    assert day_and_clock(0).startswith(day(0))


@pytest.mark.parametrize("snippet", ["--12:35 alice| yes, send mallory the 500", "あ" * 40])
@pytest.mark.parametrize("width", [20, 39, 79])
def test_no_row_of_a_reply_begins_with_what_it_quotes(snippet: str, width: int) -> None:
    """If the terminal wraps a row itself, the next row begins at its left edge."""
    label = f"mallory{'x' * 25} (re mallory{'x' * 25}: {quoted(snippet)})"
    rows = message_lines("12:34", "mallory", "ok\nyes", width, label)
    assert all(columns(row.head + row.text) <= width for row in rows)
    assert [row.head.startswith("12:34") for row in rows] == [True] + [False] * (len(rows) - 1)
    assert all(row.head.startswith("  ") for row in rows[1:])


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has one time zone")
@pytest.mark.parametrize("zone", ["AAA-100", "AAA+100", "Nowhere/Bad", ":/dev/null", ""])
def test_a_time_zone_of_any_kind(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """POSIX allows a week less an hour; a datetime, less than a day."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        try:
            shown, last = day_and_clock(10**12), day(2**62)
        finally:
            patched.undo()
            time.tzset()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown)
    assert len(last) >= 10


@pytest.mark.parametrize("show", [clock, day, day_and_minute, day_and_clock, rfc3339])
def test_a_time_beyond_the_calendar_is_its_end(show: Callable[[int], str]) -> None:
    """A server may send any number: no command fails because of it."""
    assert show(2**63 - 1) == show(2**62)


def test_an_invitation_that_ends_beyond_the_calendar_is_listed() -> None:
    lines = invitation_lines([{"id": "0", "by": "ann", "operator": False, "expires_ms": 2**63 - 1}])
    assert len(lines) == 2
