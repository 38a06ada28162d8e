"""Other schedules, ``tests.support.jitter``, in a pytest of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.programs import run_pytest

CHECKS = """
import os, select, socket, subprocess, sys
import pytest

COUNT = 300

def test_pieces():
    whole = os.urandom(10_000)
    short = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        for _ in range(COUNT):
            one.sendall(whole)
            first = got = other.recv(len(whole))
            short += len(first) < len(whole)
            while len(got) < len(whole):
                got += other.recv(len(whole) - len(got))
            assert got == whole
    assert short > COUNT / 20

@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_short_local_messages_are_whole(kind):
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    with one, other:
        one.setblocking(False)
        for _ in range(COUNT):
            assert one.send(bytes(1000)) == len(other.recv(2000)) == 1000

def test_pipes():
    read_fd, write_fd = os.pipe()
    for _ in range(COUNT):
        assert os.write(write_fd, bytes(1000)) == len(os.read(read_fd, 2000)) == 1000
    os.close(read_fd)
    os.close(write_fd)

def test_what_is_ready():
    pairs = [socket.socketpair() for _ in range(4)]
    late = 0
    with select.epoll() as poll:
        for number, (one, other) in enumerate(pairs):
            one.send(b"x")
            poll.register(other, select.EPOLLIN)
        for _ in range(COUNT):
            found = set()
            while len(found) < len(pairs):
                events = poll.poll()
                assert events
                late += len(events) < len(pairs)
                found |= {fd for fd, _ in events}
    for pair in pairs:
        for end in pair:
            end.close()
    assert late > 0

def test_in_other_processes():
    program = "print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "jitter.so" in done.stdout
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_kernel_does_otherwise_but_nothing_wrong(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(CHECKS)
    done = run_pytest(tmp_path, "-q", "-n1", "-p", "tests.support.jitter", "--jitter-seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"--jitter-seed 7$", done.stdout, re.MULTILINE)


def test_it_needs_processes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("")
    done = run_pytest(tmp_path, "-p", "tests.support.jitter")
    assert done.returncode != 0
    assert "-n 1" in done.stderr
