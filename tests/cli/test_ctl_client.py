"""Answers on the control socket of another program, or of another version."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.cli.process.exits import CommandError
from relay.cli.server_commands.ctl_client import Server

Answering = Callable[[bytes], Server]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Start a program that answers one request; return its socket's path."""
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer(line: bytes) -> Server:
            def serve() -> None:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):  # it has seen enough
                    connection.makefile("rb").readline()
                    connection.sendall(line)

            threading.Thread(target=serve, daemon=True).start()
            return Server(path)

        yield answer


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xfe\n", b"[]\n", b"null\n", b"{}\n", b'{"ok": 1}\n',
        b"[" * 100_000 + b"\n", b'{"ok": {"n": ' + b"9" * 5000 + b"}}\n",
    ],
)  # fmt: skip
def test_another_program(answering: Answering, line: bytes) -> None:
    with pytest.raises(CommandError, match="is not a relay's control process"):
        answering(line).ask("status")


def test_another_version(answering: Answering) -> None:
    """Its answer may lack expected fields, at any depth."""
    found = answering(b'{"ok": {"workers": [{"pid": 1}]}}\n').ask("status")
    assert found["workers"][0]["pid"] == 1
    for part in (found, found["workers"][0]):
        with pytest.raises(CommandError, match="the answer has no 'disk': use the relay command"):
            part["disk"]


def test_a_refusal(answering: Answering) -> None:
    with pytest.raises(CommandError, match=r"^try again$"):
        answering(b'{"error": "try again"}\n').ask("status")
