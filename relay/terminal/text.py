r"""Sanitises text from others before it reaches a terminal. Pure functions.

A terminal obeys control characters: they clear it, retitle it, write its clipboard, or make it send
answers to the shell. Formatting characters show text in another order, or hide it. So everything
from the network (including the server) passes ``harmless`` first, and everything that is not
plainly visible becomes a visible escape such as ``\u{1b}``.

The escape is for people, not for machines: somebody may also type it. ``relay tail --json`` has the
exact text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Final

from relay.quotation import escaped, in_quotes

MARKS_MAX: Final = 8
"""Combining marks per character; more only pile up over other lines ("zalgo")."""
DISPLAY_LINES_MAX: Final = 200
"""Terminal lines that one message may fill."""
CUT: Final = "[…]"
TAB_COLUMNS: Final = 8

_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANKS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\U00013441\U00013442\U0001d159")
"""Letters and symbols by category that are displayed as nothing: Hangul fillers, the empty braille
cell, blank hieroglyphs, a note without a head."""
_INVISIBLE_MARKS: Final = frozenset("\u034f\u17b4\u17b5\U00016fe4")
_NAME_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789@~")
_NAME_REST: Final = (_NAME_FIRST - {"~"}) | frozenset("_-")
_DOTTED_CIRCLE: Final = "\u25cc"
"""Unicode's base for a mark without a character of its own."""
_ZWJ: Final = "\u200d"
_EMOJI_STYLE: Final = "\ufe0f"
_KEYCAP: Final = "\u20e3"


class _Sort(Enum):
    PLAIN = 0
    MARK = 1
    UNSEEN = 2


@lru_cache(maxsize=8192)
def _sort(char: str) -> _Sort:
    category = unicodedata.category(char)
    if category in _UNSEEN_CATEGORIES or char in _BLANKS or char in _INVISIBLE_MARKS:
        return _Sort.UNSEEN
    if category[0] != "M":
        return _Sort.PLAIN
    return _Sort.UNSEEN if "VARIATION SELECTOR" in unicodedata.name(char, "") else _Sort.MARK


def is_unseen(char: str) -> bool:
    """Return True for a character that a terminal obeys, or displays as nothing."""
    return _sort(char) is _Sort.UNSEEN


def harmless(text: str, allow: str = "") -> str:
    """Return text in which everything that a terminal obeys or hides is a visible escape.

    ``allow``: characters (newline, tab) that the caller handles itself. The joiners of an emoji
    sequence stay. If a character has more than ``MARKS_MAX`` marks, the rest becomes ``…``.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = MARKS_MAX + 1  # no base character yet
    based = False
    for index, char in enumerate(text):
        sort = _sort(char)
        if char in allow:
            shown.append(char)
            based = False
        elif sort is _Sort.MARK:
            if not based:
                shown.append(_DOTTED_CIRCLE)
                based, marks = True, 0
            marks += 1
            if marks <= MARKS_MAX:
                shown.append(char)
            elif marks == MARKS_MAX + 1:
                shown.append("…")
        elif sort is _Sort.UNSEEN and _in_emoji(text, index):
            shown.append(char)
        else:
            shown.append(char if sort is _Sort.PLAIN else escaped(char))
            based, marks = True, 0
    return "".join(shown)


def _is_emoji(char: str) -> bool:
    """Return True for a symbol or a skin tone: roughly the characters of emoji."""
    return unicodedata.category(char) == "So" or "\U0001f3fb" <= char <= "\U0001f3ff"


def _in_emoji(text: str, index: int) -> bool:
    """Return True for a joiner or a style selector at its place in an emoji sequence."""
    char = text[index]
    before = text[index - 1 : index]
    after = text[index + 1 : index + 2]
    if not before or before in _BLANKS:
        return False
    if char == _EMOJI_STYLE:
        return _is_emoji(before) or (before in "0123456789#*" and after == _KEYCAP)
    if char == _ZWJ and after and after not in _BLANKS and _is_emoji(after):
        styled = before == _EMOJI_STYLE and index >= 2 and _is_emoji(text[index - 2])
        return styled or _is_emoji(before)
    return False


def harmless_name(name: str) -> str:
    """Return a handle or room as it is, or with everything that the grammar forbids escaped.

    A server could send any text as a name. After this it can contain neither a space nor the ``|``
    after a sender, nor begin like a notice.
    """
    return "".join(
        char if char in (_NAME_REST if index else _NAME_FIRST) else escaped(char)
        for index, char in enumerate(name)
    )


def quoted(text: str) -> str:
    """Return text from others in double quotes, for the middle of a line of our own.

    It can neither end the quotation nor appear to: inside, everything that looks like a double
    quote is escaped. So a display name such as ``x" left, "root`` cannot continue our sentence.
    """
    return in_quotes(harmless(text))


def columns(text: str) -> int:
    """Return the maximum number of columns that a terminal uses for sanitised text.

    Terminals differ in emoji sequences; this adds the parts up, so that a line is never too long.
    """
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(_cells(char) for char in text)


@lru_cache(maxsize=8192)
def _cells(char: str) -> int:
    # Imported here: most commands only print ASCII, and its tables are slow to load.
    from wcwidth import wcwidth

    return 1 if char == _EMOJI_STYLE else max(wcwidth(char), 0)


def wrapped(line: str, width: int) -> Iterator[str]:
    """Yield a sanitised line in pieces of at most ``width`` columns, cut at spaces if possible.

    Marks and joiners stay with their character. Tabs become spaces. Only a single character wider
    than ``width`` yields a wider piece.
    """
    piece: list[str] = []
    used = 0
    cut = 0  # clusters up to and including the last space after any text
    for cluster in _clusters(line.expandtabs(TAB_COLUMNS)):
        cells = columns(cluster)
        if piece and used + cells > width:
            cut = cut or len(piece)
            yield "".join(piece[:cut]).rstrip(" ")
            piece = piece[cut:]
            used = columns("".join(piece))
            cut = 0
        piece.append(cluster)
        used += cells
        if cluster == " " and piece[0] != " ":
            cut = len(piece)
    yield "".join(piece)


def _clusters(line: str) -> Iterator[str]:
    """Yield the characters of a line, each with its marks, selectors and joined emoji."""
    cluster = ""
    for char in line:
        belongs = cluster and (char == _EMOJI_STYLE or not _cells(char) or cluster[-1] == _ZWJ)
        if belongs and len(cluster) <= 2 * MARKS_MAX:
            cluster += char
            continue
        if cluster:
            yield cluster
        cluster = char
    if cluster:
        yield cluster
