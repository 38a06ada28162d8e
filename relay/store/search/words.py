"""What somebody types to search for, as a query of FTS5. Pure.

Words are quoted one by one, so nothing that is typed is an operator, and no query is malformed.
Text between two quotation marks is a phrase: its words side by side. All must be in a message.
"""

from __future__ import annotations

import re
from typing import Final

WORDS_MAX: Final = 16
"""Words and phrases of one query: each is another list to be read. More are not looked at."""
_PIECES: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')


def match_of(typed: str) -> str:
    """Return the query for what was typed; empty: there is no word in it.

    A piece without a letter or a digit has no word, and counts as not there.
    """
    found: list[str] = []
    for phrase, word in _PIECES.findall(typed.replace("\0", " ")):
        piece = phrase or word
        if any(char.isalnum() for char in piece):
            found.append(f'"{piece}"')
    return " ".join(found[:WORDS_MAX])
