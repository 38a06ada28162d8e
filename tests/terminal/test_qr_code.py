"""QR codes in a terminal, read back as dark and light modules, as by a camera."""

from __future__ import annotations

import re

import pytest
import segno

from relay.terminal.qr_code import code_lines

TEXT = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRST"
MODULES = [list(row) for row in segno.make(TEXT, micro=False).matrix_iter()]
WIDTH = len(MODULES[0])
PAIRS = {"\u2588": (0, 0), "\u2580": (0, 1), "\u2584": (1, 0), " ": (1, 1)}


def shown(
    columns: int = 80, lines: int = 60, encoding: str = "utf-8", *, coloured: bool = True
) -> list[str]:
    return code_lines(TEXT, columns=columns, lines=lines, encoding=encoding, coloured=coloured)


def seen(lines: list[str]) -> list[list[int]]:
    """Return the rows of half blocks, 1 for dark; blocks are drawn light."""
    rows: list[list[int]] = []
    for line in lines:
        pairs = [PAIRS[char] for char in line]
        rows += [[upper for upper, _ in pairs], [lower for _, lower in pairs]]
    return rows[: len(MODULES)]


def test_half_blocks() -> None:
    """Light on black with its own colours; without colours, light modules are drawn."""
    lines = shown()
    assert all(line.startswith("\x1b[97;40m") and line.endswith("\x1b[0m") for line in lines)
    bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert seen(bare) == MODULES
    assert shown(coloured=False) == bare


def test_colours_alone() -> None:
    """In an encoding without blocks: two blanks for a module, white or black."""
    lines = shown(encoding="latin-1")
    assert all(line.isascii() for line in lines)
    for line, row in zip(lines, MODULES, strict=True):
        found = re.findall(r"\x1b\[(40|107)m  ", line)
        assert [colour == "40" for colour in found] == [bool(module) for module in row]
    assert shown(encoding="latin-1", coloured=False) == []


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_one_that_does_not_fit_is_left_out(encoding: str) -> None:
    """A part of a code is useless, and would scroll away the line that is to be typed."""
    whole = shown(encoding=encoding)
    width = WIDTH * (1 if encoding == "utf-8" else 2)
    assert shown(width, len(whole), encoding) == whole
    assert shown(width - 1, len(whole), encoding) == []
    assert shown(width, len(whole) - 1, encoding) == []
