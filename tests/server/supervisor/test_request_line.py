"""Requests to the supervisor: whatever arrives, and whatever fails, the next one is answered."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from relay.errors import RelayError
from relay.server.supervisor.request_line import RequestLine


def refuse(_: Mapping[str, Any]) -> object:
    raise RelayError("not now")


def fail(_: Mapping[str, Any]) -> object:
    raise OSError("unforeseen")


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (b"no JSON", None),
        (b"[" * 5000, None),
        (b'{"number":' * 5000, None),
        (b"[]", None),
        (b"{}", None),
        (b'{"do": "works"}', None),
        (b'{"number": [], "do": "works"}', None),
        (b'{"number": Infinity, "do": "works"}', None),
        (b'{"number": 1, "do": []}', None),
        (b"x" * 65_537, None),
        (b'{"number": 1, "do": "works", "before_s": 0.0}', None),
        (b'{"number": 1, "do": "works", "before_s": []}', None),
        (b'{"number": 1, "do": "works", "before_s": 1e300}', {"ok": "done"}),
        (b'{"number": 1, "do": "other"}', {"error": "the supervisor does not know this request"}),
        (b'{"number": 1, "do": "refuse"}', {"error": "not now"}),
        (b'{"number": 1, "do": "fail"}', {"error": "an internal error; the server's log has it"}),
        (b'{"number": 1, "do": "works"}', {"ok": "done"}),
    ],
)
def test_the_next_one_is_answered(message: bytes, answer: dict[str, str] | None) -> None:
    requests = RequestLine({"works": lambda _: "done", "refuse": refuse, "fail": fail})
    with socket.socket(fileno=requests.far_fd) as asking:
        asking.setblocking(False)
        for one in (message, b'{"number": 2, "do": "works"}'):
            asking.send(one)
            requests.answer_all()
        expected = [] if answer is None else [{"number": 1, **answer}]
        for each in [*expected, {"number": 2, "ok": "done"}]:
            assert json.loads(asking.recv(65_536)) == each
        asking.detach()
    requests.close()


def test_answers_that_nobody_reads() -> None:
    """They are dropped; the supervisor does not wait, and nothing is raised."""
    requests = RequestLine({"works": lambda _: "x" * 60_000})
    with socket.socket(fileno=requests.far_fd) as asking:
        asking.setblocking(False)
        for _ in range(100):
            asking.send(b'{"number": 1, "do": "works"}')
            requests.answer_all()
        asking.detach()
    requests.close()
