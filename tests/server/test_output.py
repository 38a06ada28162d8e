"""Non-blocking output to every kind of file that stderr can be."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import socket
import subprocess
import sys
import tty
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.server.system.output import Output
from tests.support.refused_calls import CAN_BE_REFUSED, refusing

LINE = b"x" * 99 + b"\n"
F_SETPIPE_SZ = 1031


def pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, F_SETPIPE_SZ, 4096)
    return read_fd, write_fd


def stream() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    tty.setraw(writer)
    return reader, writer


Pair = Callable[[], tuple[int, int]]


@pytest.fixture(params=[pipe, stream, terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    make: Pair = request.param
    reader, writer = make()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_all(fd: int) -> bytes:
    """Return what the kernel has buffered."""
    data = b""
    while select.select([fd], [], [], 0.2)[0]:
        data += os.read(fd, 65536)
    return data


@pytest.mark.parametrize("reopen", [True, False])
def test_an_unread_reader_is_not_waited_for(ends: tuple[int, int], reopen: bool) -> None:
    """Lines are written whole until the buffer is full, are lost, and are written again."""
    reader, writer = ends
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    output = Output(writer, reopen=reopen)
    written, failures = [], 0
    while failures < 1000:  # a terminal drains by itself, a little later
        line = LINE if failures < 10 else b"s\n"
        if output.write(line):
            written.append(line)
            failures = 0
        else:
            failures += 1
    assert LINE in written
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags, "other processes use the open file, too"
    data = read_all(reader)
    assert output.write(b"again\n")
    data += read_all(reader)
    assert data == b"".join(written) + b"again\n"
    output.close()


def test_two_writers_of_one_pipe_keep_their_lines_whole() -> None:
    reader, writer = pipe()
    first, second = Output(writer), Output(writer)
    while first.write(LINE) and second.write(b"y" * 60 + b"\n"):
        pass
    lines = read_all(reader).splitlines()
    assert {bytes(set(line)) for line in lines} == {b"x", b"y"}
    assert {len(line) for line in lines} == {60, 99}
    for output in (first, second):
        output.close()
    os.close(reader)
    os.close(writer)


def test_a_line_of_which_a_part_went_is_finished_first() -> None:
    """A line longer than an atomic write: nothing of this process goes between its parts."""
    reader, writer = pipe()
    output = Output(writer)
    assert output.write(b"a" * 10_000 + b"\n")
    assert not output.write(b"lost\n")
    data = read_all(reader)
    while b"\n" not in data:
        output.write(b"next\n")
        data += read_all(reader)
    assert data.startswith(b"a" * 10_000 + b"\nnext\n")
    output.close()
    os.close(reader)
    os.close(writer)


@CAN_BE_REFUSED
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_kernel_that_refuses_to_write_without_waiting(error: int) -> None:
    """As a container's filter does with system calls that it does not know."""
    ours, theirs = socket.socketpair()
    program = (
        f"{refusing(error, 'pwritev2')}from relay.server.system.output import Output\n"
        "output = Output(1)\n"
        "assert output.write(b'one\\n')\n"
        "while output.write(bytes(4096)):\n"
        "    pass\n"
    )
    with ours, theirs:
        subprocess.run([sys.executable, "-c", program], stdout=theirs.fileno(), check=True)
        assert ours.recv(4) == b"one\n"


@pytest.mark.parametrize("make", [pipe, stream, terminal])
def test_a_reader_that_is_gone(make: Pair) -> None:
    reader, writer = make()
    output = Output(writer)
    os.close(reader)
    assert not any(output.write(LINE) for _ in range(3))
    output.close()
    os.close(writer)


def test_a_descriptor_that_does_not_wait_already() -> None:
    reader, writer = pipe()
    os.set_blocking(writer, False)
    output = Output(writer)
    while output.write(LINE):
        pass
    assert read_all(reader).endswith(LINE)
    output.close()
    os.close(reader)
    os.close(writer)


def test_a_file_is_added_to(tmp_path: Path) -> None:
    """``2>log``: what others wrote to the same open file stays."""
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        output = Output(file.fileno())
        assert output.write(b"one\n")
        file.write(b"theirs\n")
        assert output.write(b"two\n")
    assert path.read_bytes() == b"one\ntheirs\ntwo\n"


FILLS_UP = """
import os, resource, signal, sys
from pathlib import Path
from relay.server.system.output import Output
path, flags = Path(sys.argv[1]), os.O_WRONLY | os.O_CREAT | int(sys.argv[2])
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, most))
ours, theirs = (Output(os.dup(fd)) for fd in [os.open(path, flags)] * 2)
line = b"x" * 99 + b"\\n"
assert ours.write(line) and theirs.write(line)
assert not ours.write(line)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
assert theirs.write(b"theirs\\n") and ours.write(b"ours\\n")
assert path.read_bytes() == 2 * line + b"theirs\\nours\\n"
"""


@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["appended", "at its place"])
def test_a_disk_that_becomes_full_within_a_line(tmp_path: Path, flags: int) -> None:
    """Nothing of it stays: another process writes there next."""
    command = [sys.executable, "-c", FILLS_UP, str(tmp_path / "log"), str(flags)]
    subprocess.run(command, check=True)


def test_a_full_disk() -> None:
    with closing(os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)) as full:
        assert not Output(full.fileno()).write(LINE)
