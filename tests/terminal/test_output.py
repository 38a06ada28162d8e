"""Writing to slow readers, closed readers and files, with the event loop running."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from relay.terminal.output import Output


async def test_a_slow_reader_does_not_stop_the_loop() -> None:
    """Writing waits; the loop goes on; nothing is lost."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    text = "".join(f"{n}\n" for n in range(100_000))
    write = asyncio.create_task(Output(writing).write(text))
    received = b""
    while not write.done():
        await asyncio.sleep(0)  # the loop runs, although the pipe is full
        with contextlib.suppress(BlockingIOError):
            received += os.read(reading, 65_536)
    await write
    os.close(writing)
    while data := os.read(reading, 65_536):
        received += data
    os.close(reading)
    assert received.decode() == text


async def test_a_full_pipe_can_be_given_up() -> None:
    """Ctrl-C while there is no reader."""
    reading, writing = os.pipe()
    write = asyncio.create_task(Output(writing).write("x" * 1_000_000))
    done, _ = await asyncio.wait({write}, timeout=0.2)
    assert not done
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    os.close(reading)
    os.close(writing)


async def test_the_reader_is_gone() -> None:
    """Writing raises, and so does waiting for it."""
    reading, writing = os.pipe()
    output = Output(writing)
    gone = asyncio.create_task(output.closed_by_reader())
    await asyncio.sleep(0)
    assert not gone.done()
    os.close(reading)
    await asyncio.wait_for(gone, 60)
    with pytest.raises(BrokenPipeError):
        await output.write("x")
    os.close(writing)


async def test_a_file(tmp_path: Path) -> None:
    """Files accept everything at once."""
    with (tmp_path / "out").open("wb") as file:
        output = Output(file.fileno())
        gone = asyncio.create_task(output.closed_by_reader())
        await output.write("é" * 100_000)
        assert not gone.done()
        gone.cancel()
    assert (tmp_path / "out").read_text() == "é" * 100_000


async def test_what_an_encoding_cannot_say_is_escaped(tmp_path: Path) -> None:
    """An old terminal shows escapes instead of failing."""
    with (tmp_path / "out").open("wb") as file:
        await Output(file.fileno(), "latin-1").write("é✓\udc80")
        await Output(file.fileno()).write("é✓\udc80")
    assert (tmp_path / "out").read_bytes() == "é\\u{2713}\\u{dc80}".encode(
        "latin-1"
    ) + "é✓\\u{dc80}".encode()
