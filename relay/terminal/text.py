r"""Text from others, made harmless before it reaches a terminal. Pure functions.

A terminal obeys control characters: they clear it, retitle it, write its clipboard, make it answer
into the shell. Formatting characters show text in another order than it has, or not at all. So
whatever comes from the network (the server included) passes ``harmless`` first, and everything that
is not plainly visible becomes a visible escape such as ``\u{1b}``.

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
"""Combining marks on one character; more only pile up over other lines ("zalgo")."""
DISPLAY_LINES_MAX: Final = 200
"""Lines that one message may fill of a terminal."""
CUT: Final = "[…]"
TAB_COLUMNS: Final = 8

_UNSEEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_BLANKS: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800\U00013441\U00013442\U0001d159")
"""Letters and symbols by category that show as nothing: Hangul fillers, the empty braille cell,
blank hieroglyphs, a note without a head."""
_INVISIBLE_MARKS: Final = frozenset("\u034f\u17b4\u17b5\U00016fe4")
_NAME_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789@~")
_NAME_REST: Final = (_NAME_FIRST - {"~"}) | frozenset("_-")
_DOTTED_CIRCLE: Final = "\u25cc"
"""What Unicode puts under a mark that has no character of its own to sit on."""
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
    """True for a character that a terminal obeys, or shows as nothing."""
    return _sort(char) is _Sort.UNSEEN


def harmless(text: str, allow: str = "") -> str:
    """Return text in which everything that a terminal obeys or hides is a visible escape.

    ``allow`` names characters (newline, tab) that the caller deals with itself. The joiners of an
    emoji sequence stay. Of more than ``MARKS_MAX`` marks on a character the rest becomes ``…``.
    """
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = MARKS_MAX + 1  # no character to sit on yet
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
    """True for a symbol or a skin tone: roughly the characters that emoji are made of."""
    return unicodedata.category(char) == "So" or "\U0001f3fb" <= char <= "\U0001f3ff"


def _in_emoji(text: str, index: int) -> bool:
    """True for a joiner or a style selector where an emoji sequence has one."""
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
    """Return a handle or room as it is, or with all that the grammar forbids escaped.

    A server could send any text as a name. This way it can contain neither a space nor the ``|``
    after a sender, nor begin like a notice.
    """
    return "".join(
        char if char in (_NAME_REST if index else _NAME_FIRST) else escaped(char)
        for index, char in enumerate(name)
    )


def quoted(text: str) -> str:
    """Return text from others in double quotes, for the middle of a line of our own.

    It can neither end the quotation nor seem to: inside, whatever looks like a double quote is an
    escape. So a display name such as ``x" left, "root`` cannot continue our sentence.
    """
    return in_quotes(harmless(text))


def columns(text: str) -> int:
    """Return the most columns that a terminal takes for harmless text.

    Terminals differ over emoji sequences; this adds their parts up, so that a line never runs over.
    """
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(_cells(char) for char in text)


@lru_cache(maxsize=8192)
def _cells(char: str) -> int:
    # Here, not above: most commands print ASCII alone, and its tables are slow to load.
    from wcwidth import wcwidth

    return 1 if char == _EMOJI_STYLE else max(wcwidth(char), 0)


def wrapped(line: str, width: int) -> Iterator[str]:
    """Yield a harmless line in pieces of at most ``width`` columns, cut at spaces where it can.

    Marks and joiners stay with their character. Tabs become spaces. Only a single character that is
    wider than ``width`` yields a wider piece.
    """
    piece: list[str] = []
    used = 0
    cut = 0  # clusters up to and with the last space that has text before it
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
    """Yield the characters of a line, each with the marks, selectors and emoji joined to it."""
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
