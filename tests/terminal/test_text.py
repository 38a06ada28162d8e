"""Text from others cannot control, deceive or flood a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.terminal.text import (
    CUT,
    MARKS_MAX,
    columns,
    harmless,
    harmless_name,
    is_unseen,
    wrapped,
)

HOSTILE = {
    "clear the screen": ("\x1b[2J", "\\u{1b}[2J"),
    "write the clipboard": ("\x1b]52;c;cm0=\x07", "\\u{1b}]52;c;cm0=\\u{7}"),
    "set the title": ("\x1b]0;root\x1b\\", "\\u{1b}]0;root\\u{1b}\\"),
    "make a link": ("\x1b]8;;http://x\x1b\\y", "\\u{1b}]8;;http://x\\u{1b}\\y"),
    "device control": ("\x1bPq", "\\u{1b}Pq"),
    "device report": ("\x1b[6n", "\\u{1b}[6n"),
    "8-bit CSI": ("\x9b2J", "\\u{9b}2J"),
    "8-bit OSC": ("\x9d0;x\x9c", "\\u{9d}0;x\\u{9c}"),
    "overwrite the line": ("safe\rEVIL", "safe\\u{d}EVIL"),
    "backspace": ("ab\b\bcd", "ab\\u{8}\\u{8}cd"),
    "bell, VT, FF, DEL, NUL": ("\a\v\f\x7f\0", "\\u{7}\\u{b}\\u{c}\\u{7f}\\u{0}"),
    "CR LF": ("a\r\nb", "a\\u{d}\\u{a}b"),
    "other line ends": ("a\u2028b\u2029c\x85d", "a\\u{2028}b\\u{2029}c\\u{85}d"),
    "reversed": ("\u202egnp.exe\u202c", "\\u{202e}gnp.exe\\u{202c}"),
    "isolates": ("\u2066x\u2069", "\\u{2066}x\\u{2069}"),
    "direction marks": ("\u200e\u200f\u061c", "\\u{200e}\\u{200f}\\u{61c}"),
    "zero width": ("a\u200bb\u2060c\ufeffd", "a\\u{200b}b\\u{2060}c\\u{feff}d"),
    "soft hyphen": ("a\u00adb", "a\\u{ad}b"),
    "tags": ("x\U000e0041", "x\\u{e0041}"),
    "Hangul fillers": ("\u3164\u115f\u1160\uffa0", "\\u{3164}\\u{115f}\\u{1160}\\u{ffa0}"),
    "empty braille": ("\u2800", "\\u{2800}"),
    "blanks of later scripts": (
        "a\U00013441\U00013442\U0001d159\U00016fe4b",
        "a\\u{13441}\\u{13442}\\u{1d159}\\u{16fe4}b",
    ),
    "joiner outside of emoji": ("a\u200db", "a\\u{200d}b"),
    "selector outside of emoji": ("a\ufe0f\U000e0100", "a\\u{fe0f}\\u{e0100}"),
    "grapheme joiner": ("a\u034fb", "a\\u{34f}b"),
    "private, unassigned, surrogate": ("\ue000\u0378\ud800", "\\u{e000}\\u{378}\\u{d800}"),
    "interlinear": ("\ufff9x\ufffb", "\\u{fff9}x\\u{fffb}"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_becomes_visible(text: str, shown: str) -> None:
    """Each known trick is shown as what it is."""
    assert harmless(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "søme ✓ text",
        "日本語",
        "עברית",
        "न्यायालय",
        "é",
        "e\u0301",
        "❤️",
        "👩‍👩‍👧",
        "👍🏽",
        "1️⃣",
        "🇬🇧",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """Scripts of all languages and emoji are not changed."""
    assert harmless(text) == text


def test_the_caller_may_deal_with_newline_and_tab() -> None:
    """Only the named characters pass."""
    assert harmless("a\n\tb\r", allow="\n\t") == "a\n\tb\\u{d}"


def test_marks_are_capped() -> None:
    """A thousand combining marks on one letter show as eight and a sign that there were more."""
    assert harmless("e" + "\u0301" * 1000 + "x") == "e" + "\u0301" * MARKS_MAX + "…x"


def test_a_mark_does_not_sit_on_what_is_before_the_text() -> None:
    """Nor on the beginning of a line."""
    assert harmless("\u0338x") == "\u25cc\u0338x"
    assert harmless("a\n\u0338x", allow="\n") == "a\n\u25cc\u0338x"


@given(st.text(max_size=200))
def test_nothing_unseen_passes(text: str) -> None:
    """For any text: only joiners and selectors inside of emoji remain invisible."""
    for char in harmless(text):
        assert not is_unseen(char) or char in "\u200d\ufe0f"
        assert unicodedata.category(char) not in {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(max_size=200))
def test_harmless_twice_is_harmless_once(text: str) -> None:
    """It is safe to apply it again."""
    assert harmless(harmless(text)) == harmless(text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("alice", "alice"),
        ("a-b_2", "a-b_2"),
        ("@bob", "@bob"),
        ("-!-", "\\u{2d}\\u{21}-"),
        ("al| ice", "al\\u{7c}\\u{20}ice"),
        ("аdmin", "\\u{430}dmin"),
        ("Al", "\\u{41}l"),
        ("a\n12:00 b", "a\\u{a}12\\u{3a}00\\u{20}b"),
    ],
)
def test_names_of_a_hostile_server(name: str, shown: str) -> None:
    """A name is shown unchanged only if it is legal."""
    assert harmless_name(name) == shown


def test_wrapping_cuts_at_spaces() -> None:
    """Words stay whole while they fit."""
    assert list(wrapped("to be or not to be", 9)) == ["to be or", "not to be"]
    assert list(wrapped("abcdefghij", 4)) == ["abcd", "efgh", "ij"]
    assert list(wrapped("", 4)) == [""]


def test_wrapping_counts_columns() -> None:
    """A wide character does not exceed the last column."""
    assert list(wrapped("漢字漢字", 5)) == ["漢字", "漢字"]


@given(st.text(max_size=300), st.integers(2, 40))
def test_no_piece_is_wider_than_the_terminal(text: str, width: int) -> None:
    """And no character is lost, except for spaces where a line was wrapped."""
    line = harmless(text)
    pieces = list(wrapped(line, width))
    assert all(columns(piece) <= max(width, 2) for piece in pieces)
    assert "".join(pieces).replace(" ", "") == line.replace(" ", "")


def test_a_very_long_line_takes_linear_time() -> None:
    """40,000 columns, with and without spaces."""
    assert len(list(wrapped("a" * 40_000, 80))) == 500
    assert len(list(wrapped("ab " * 13_333, 80))) == 513


def test_the_cut_mark_is_plain() -> None:
    """Our own additions are harmless, too."""
    assert harmless(CUT) == CUT
