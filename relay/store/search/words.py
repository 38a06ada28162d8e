"""Defines the words of a text, and converts a typed search to an FTS5 query. Pure.

Words are quoted one by one, so typed text never acts as an operator, and no query is malformed.
Text between two quotation marks is a phrase: its words in sequence. A message must contain all of
them.
"""

from __future__ import annotations

import functools
import re
from typing import Final

WORDS_MAX: Final = 16
"""Words and phrases of one query: each is another list to read. Further ones are ignored."""
CONTENT_TYPES: Final = 64
"""Cache size for whether a content type is text."""
_ALONE: Final = re.compile(
    "[\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Han and Kana, which are written without spaces: each character is a word, and a run of them a
phrase."""
_SIGNS: Final = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff]")
"""Emoji and similar characters, which FTS5 treats as spaces."""
_SIGN_MARK: Final = "\ue000"
"""A private-use code point, which nobody types and FTS5 treats as a letter."""
_PIECES: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')


@functools.lru_cache(CONTENT_TYPES)
def is_text(content_type: str) -> bool:
    """Return True if content of this type has words that people read."""
    return content_type.partition(";")[0].strip().lower() == "text/plain"


def text_of(content_type: str, body: bytes) -> str:
    """Return the words that people read in a message; empty for other content types."""
    if not is_text(content_type):
        return ""
    return apart(body.decode("utf-8", "replace").replace("\0", " "))


def apart(text: str) -> str:
    """Return a text in which each word, as defined here, is one to FTS5, surrounded by spaces."""
    if text.isascii():
        return text
    text = _ALONE.sub(r" \g<0> ", text)
    return _SIGNS.sub(lambda found: f" {_SIGN_MARK}{ord(found[0]):x} ", text)


def match_of(typed: str) -> str:
    """Return the query for what was typed; empty if it contains no word.

    A piece without a letter, a digit or an emoji has no word, and is ignored.
    """
    found: list[str] = []
    for phrase, word in _PIECES.findall(typed.replace("\0", " ")):
        piece = apart(phrase or word)
        if any(char.isalnum() for char in piece):
            found.append(f'"{piece}"')
    return " ".join(found[:WORDS_MAX])
