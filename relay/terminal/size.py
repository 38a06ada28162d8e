"""The width of a terminal."""

from __future__ import annotations

import os
from typing import Final

COLUMNS_DEFAULT: Final = 80


def terminal_columns(fd: int) -> int | None:
    """Return how many columns of a terminal a line may fill; None: not a terminal.

    One less than there are: a terminal wraps the line when the last column is filled.
    """
    if not os.isatty(fd):
        return None
    try:
        columns = os.get_terminal_size(fd).columns
    except OSError:
        columns = 0
    return (columns or COLUMNS_DEFAULT) - 1
