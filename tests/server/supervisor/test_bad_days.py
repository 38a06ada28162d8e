"""When the log cannot be written, children are replaced, nothing leaks, and TERM exits with 0."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import DEADLINE_S, ROOT, wait_until

F_SETPIPE_SZ = 1031
PIPE_BYTES = 4096


def fill(fd: int) -> None:
    """Write empty lines until the descriptor is full."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"\n")
    os.set_blocking(fd, True)


def closed_pipe(stack: contextlib.ExitStack) -> int:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    return write_fd


def unread_pipe(stack: contextlib.ExitStack) -> int:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, F_SETPIPE_SZ, PIPE_BYTES)
    stack.callback(os.close, read_fd)
    return write_fd


def unread_socket(stack: contextlib.ExitStack) -> int:
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return theirs.detach()


def unread_terminal(stack: contextlib.ExitStack) -> int:
    reader, writer = pty.openpty()
    stack.callback(os.close, reader)
    fill(writer)
    return writer


def terminal_after_ctrl_s(stack: contextlib.ExitStack) -> int:
    reader, writer = pty.openpty()
    stack.callback(os.close, reader)
    termios.tcflow(writer, termios.TCOOFF)
    return writer


def closed_socket(stack: contextlib.ExitStack) -> int:
    ours, theirs = socket.socketpair()
    ours.close()
    return theirs.detach()


def hung_up_terminal(stack: contextlib.ExitStack) -> int:
    reader, writer = pty.openpty()
    os.close(reader)
    return writer


def full_disk(stack: contextlib.ExitStack) -> int:
    return os.open("/dev/full", os.O_WRONLY)


def read_only(stack: contextlib.ExitStack) -> int:
    return os.open(os.devnull, os.O_RDONLY)


LOGS: list[Callable[[contextlib.ExitStack], int]] = [
    closed_pipe, unread_pipe, closed_socket, unread_socket, unread_terminal, terminal_after_ctrl_s,
    hung_up_terminal, full_disk, read_only,
]  # fmt: skip


class Server:
    """A supervisor of minimal children whose log is ``stderr``."""

    def __init__(self, directory: Path, stderr: int) -> None:
        command = [sys.executable, "-m", "tests.server.supervisor.small_server", str(directory)]
        self.process = subprocess.Popen(
            [*command, "2", "{}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        with self.process.stdout as printed:
            assert printed.readline() == b"fingerprint\n"
        self.supervisor = psutil.Process(self.process.pid)

    def children(self) -> list[int]:
        return [child.pid for child in self.supervisor.children()]

    def replace_all(self) -> None:
        """Kill the workers and the agent, and wait until all are replaced."""
        before = self.children()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: len(set(now := self.children()) - set(before)) == len(before) == len(now),
            "all children replaced",
        )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Server]]:
    servers: list[Server] = []

    def run(stderr: int) -> Server:
        servers.append(Server(tmp_path, stderr))
        os.close(stderr)
        return servers[-1]

    yield run
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


@pytest.mark.parametrize("kind", LOGS)
def test_the_log_cannot_stop_supervision(
    start: Callable[[int], Server], kind: Callable[[contextlib.ExitStack], int]
) -> None:
    with contextlib.ExitStack() as stack:
        server = start(kind(stack))
        descriptors = server.supervisor.num_fds()
        for _ in range(60):
            server.process.send_signal(signal.SIGHUP)
        server.replace_all()
        server.replace_all()
        wait_until(
            lambda: server.supervisor.num_fds() <= descriptors, "no descriptor more than before"
        )
        server.process.terminate()
        assert server.process.wait(DEADLINE_S) == 0


def test_lost_lines_are_counted_and_reported(start: Callable[[int], Server]) -> None:
    """Once the pipe is read again: complete lines, and the number of lost ones."""
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, F_SETPIPE_SZ, PIPE_BYTES)
    fill(write_fd)
    flags = fcntl.fcntl(read_fd, fcntl.F_GETFL)
    server = start(os.dup(write_fd))
    server.replace_all()
    data = b""
    while b'"log_lines_lost"' not in data:
        chunk = os.read(read_fd, 65536)
        assert chunk
        data += chunk
    assert fcntl.fcntl(read_fd, fcntl.F_GETFL) == flags
    assert not fcntl.fcntl(write_fd, fcntl.F_GETFL) & os.O_NONBLOCK, "others write there, too"
    os.close(write_fd)
    server.process.terminate()
    while chunk := os.read(read_fd, 65536):
        data += chunk
    os.close(read_fd)
    assert server.process.wait(DEADLINE_S) == 0
    events = [json.loads(line) for line in data.splitlines() if line]
    lost = sum(event["count"] for event in events if event["event"] == "log_lines_lost")
    assert lost >= 5  # agent_ready, workers, and the exits of three children
    assert not [event for event in events if event["event"] == "child_exited"][3:]
    assert events[-1]["event"] == "stopped"


def test_a_disk_that_has_space_again(start: Callable[[int], Server]) -> None:
    """The log is a file on a file system that was full for a while."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    with tempfile.TemporaryDirectory() as name:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "small", name]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting is not permitted here")
        try:
            ballast, path = Path(name, "ballast"), Path(name, "log")
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            server = start(log)
            server.replace_all()
            ballast.unlink()
            wait_until(lambda: b"log_lines_lost" in path.read_bytes(), "the report")
            server.process.terminate()
            assert server.process.wait(DEADLINE_S) == 0
            events = [json.loads(line) for line in path.read_bytes().splitlines()]
            assert events[-1]["event"] == "stopped"
        finally:
            subprocess.run(["umount", "-l", name], check=True)
