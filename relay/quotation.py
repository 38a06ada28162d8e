"""Text from others within a line of our own: it can neither end its quotation nor appear to."""

from __future__ import annotations

import re
from typing import Final

# Unicode's quotation marks, and the letters and primes that look like them. A single apostrophe is
# part of many names; only two of them in a row, or with blanks between, look like a double quote.
_SINGLE: Final = (
    "'`\u00b4\u02b9-\u02bd\u02c8\u02ca\u02cb\u2018-\u201b\u2032\u2035\u275b\u275c\uff07"
)
_SEEMS_DOUBLE_QUOTE: Final = re.compile(
    '["\u00ab\u00bb\u02ba\u02dd\u02ee\u02f5\u02f6\u05f2\u05f4\u201c-\u201f\u2033\u2034\u2036'
    "\u2037\u2039\u203a\u2057\u275d\u275e\u2760\u276e\u276f\u2e42\u3003\u300a-\u300f\u301d-\u301f\uff02"
    f"\U0001f676-\U0001f678]|[{_SINGLE}]\\s*[{_SINGLE}]+"
)


def escaped(char: str) -> str:
    """Return the visible escape of one character."""
    return f"\\u{{{ord(char):x}}}"


def in_quotes(text: str) -> str:
    """Return text in double quotes; everything that looks like one in it becomes a visible escape.

    It must be sanitised otherwise.
    """
    inner = _SEEMS_DOUBLE_QUOTE.sub(lambda found: "".join(map(escaped, found[0])), text)
    return f'"{inner}"'
