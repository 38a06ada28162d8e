"""What the words of a text are, and what somebody types to search for, as a query of FTS5. Pure.

Words are quoted one by one, so nothing that is typed is an operator, and no query is malformed.
Text between two quotation marks is a phrase: its words side by side. All must be in a message.
"""

from __future__ import annotations

import functools
import re
from typing import Final

WORDS_MAX: Final = 16
"""Words and phrases of one query: each is another list to be read. More are not looked at."""
CONTENT_TYPES: Final = 64
"""Of so many it is remembered whether they are text."""
_ALONE: Final = re.compile(
    "[\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Han and Kana, which are written without spaces: each is a word, and a run of them a phrase."""
_SIGNS: Final = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff]")
"""Emoji and the like, which FTS5 takes for spaces."""
_SIGN_MARK: Final = "\ue000"
"""Nobody types it: a code point for private use, which FTS5 takes for a letter."""
_PIECES: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')


@functools.lru_cache(CONTENT_TYPES)
def is_text(content_type: str) -> bool:
    """Tell whether what has this content type has words that people read."""
    return content_type.partition(";")[0].strip().lower() == "text/plain"


def text_of(content_type: str, body: bytes) -> str:
    """Return the words that people read in a message; empty: it is of another content type."""
    if not is_text(content_type):
        return ""
    return apart(body.decode("utf-8", "replace").replace("\0", " "))


def apart(text: str) -> str:
    """Return a text in which whatever is a word is one to FTS5, with spaces around it."""
    if text.isascii():
        return text
    text = _ALONE.sub(r" \g<0> ", text)
    return _SIGNS.sub(lambda found: f" {_SIGN_MARK}{ord(found[0]):x} ", text)


def match_of(typed: str) -> str:
    """Return the query for what was typed; empty: there is no word in it.

    A piece without a letter, a digit or an emoji has no word, and counts as not there.
    """
    found: list[str] = []
    for phrase, word in _PIECES.findall(typed.replace("\0", " ")):
        piece = apart(phrase or word)
        if any(char.isalnum() for char in piece):
            found.append(f'"{piece}"')
    return " ".join(found[:WORDS_MAX])
