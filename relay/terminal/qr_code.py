"""A QR code as terminal lines, for the camera of a phone."""

from __future__ import annotations

from itertools import zip_longest
from typing import Final

import segno

_BLOCKS: Final = {
    (0, 0): "\N{FULL BLOCK}",
    (0, 1): "\N{UPPER HALF BLOCK}",
    (1, 0): "\N{LOWER HALF BLOCK}",
    (1, 1): " ",
}
"""By two modules, the upper and the lower one, 1 for a dark one: light modules are drawn."""
_ON_BLACK: Final = "\x1b[97;40m"
_WHITE: Final = "\x1b[107m"
_BLACK: Final = "\x1b[40m"
_PLAIN: Final = "\x1b[0m"


def code_lines(text: str, *, columns: int, lines: int, encoding: str, coloured: bool) -> list[str]:
    """Return the lines of a QR code; none if the terminal cannot show it completely.

    With colours it is dark on light whatever the terminal's own colours are: some cameras cannot
    read inverted codes, as half blocks are on a light terminal.

    Args:
        text: its content.
        columns: of the terminal.
        lines: available on it.
        encoding: of the output: some have no half blocks.
        coloured: whether the terminal supports colours.
    """
    rows = [list(row) for row in segno.make(text, micro=False).matrix_iter()]
    width = len(rows[0])
    try:
        "".join(_BLOCKS.values()).encode(encoding)
    except UnicodeEncodeError:
        if not coloured or columns < 2 * width or lines < len(rows):
            return []
        return [
            "".join(f"{_BLACK if module else _WHITE}  " for module in row) + _PLAIN for row in rows
        ]
    if columns < width or lines < (len(rows) + 1) // 2:
        return []
    drawn = [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=[1] * width)
    ]
    return [f"{_ON_BLACK}{line}{_PLAIN}" for line in drawn] if coloured else drawn
