"""Lines of input: for any split into reads, and with bounded memory."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path

import pytest

from relay.terminal.lines import InputLine, LineSplitter, read_lines

TEXT = b"one\n\ntwo\r\nth\xc3\xa9\n0123456789abc\nlast"
LINES = [
    InputLine(1, b"one", 3),
    InputLine(2, b"", 0),
    InputLine(3, b"two\r", 4),
    InputLine(4, b"th\xc3\xa9", 4),
    InputLine(5, b"0123456789", 13),
    InputLine(6, b"last", 4),
]


@pytest.mark.skipif(os.name == "nt", reason="CR LF is a newline there")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_any_cut_gives_the_same_lines(size: int) -> None:
    """Whole, byte by byte, and in between; a line over the limit is cut and counted."""
    splitter = LineSplitter(10)
    lines = []
    for start in range(0, len(TEXT), size):
        lines += splitter.feed(TEXT[start : start + size])
    assert lines + splitter.end() == LINES
    assert [line.is_whole for line in LINES] == [True, True, True, True, False, True]


def test_a_final_newline_adds_no_line() -> None:
    """Nor does an empty end."""
    splitter = LineSplitter(10)
    assert splitter.feed(b"a\n") == [InputLine(1, b"a", 1)]
    assert splitter.end() == []


def test_an_endless_line_takes_no_memory() -> None:
    """64 MiB without a newline are counted, not buffered."""
    splitter = LineSplitter(32_768)
    chunk = bytes(65_536)
    tracemalloc.start()
    try:
        for _ in range(1024):
            splitter.feed(chunk)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    (line,) = splitter.end()
    assert line.length == 64 * 1024 * 1024


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    """Regular files work, too, which epoll refuses."""
    path = tmp_path / "input"
    path.write_bytes(b"".join(b"%d\n" % n for n in range(100_000)))
    with path.open("rb") as file:
        read = [line.data async for line in read_lines(file.fileno(), 100)]
    assert read == [b"%d" % n for n in range(100_000)]


async def test_a_pipe_is_read_while_it_is_written() -> None:
    """A line comes as soon as it is complete, with the loop running in between."""
    reading, writing = os.pipe()
    lines = read_lines(reading, 100)
    os.write(writing, b"first\nsec")
    assert (await anext(lines)).data == b"first"
    second = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    assert not second.done()
    os.write(writing, b"ond\n")
    assert (await second).data == b"second"
    os.close(writing)
    assert [line async for line in lines] == []
    os.close(reading)


async def test_it_reads_no_further_than_one_read_ahead() -> None:
    """A slow consumer blocks the writer, and does not fill the memory."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = read_lines(reading, 100)
    os.write(writing, b"x\n")
    assert (await anext(lines)).data == b"x"
    written = 0
    quiet = 0
    while quiet < 20 and written < 1024 * 1024:
        try:
            written += os.write(writing, b"y\n" * 2048)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            await asyncio.sleep(0.01)
    assert written < 1024 * 1024
    os.close(writing)
    assert sum([2 async for _ in lines]) == written
    os.close(reading)


async def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A directory as standard input."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="directory"):
        await anext(read_lines(fd, 100))
    os.close(fd)
