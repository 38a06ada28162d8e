"""The forms of an address to listen on."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import UsageError
from relay.listen_address import parse_listen_address


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:7475", ("127.0.0.1", 7475)),
        ("[::1]:0", ("::1", 0)),
        (":7475", ("0.0.0.0", 7475)),  # noqa: S104
        ("*:7475", ("0.0.0.0", 7475)),  # noqa: S104
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_parse(text: str, parsed: tuple[str, int]) -> None:
    assert parse_listen_address(text) == parsed
    assert parse_listen_address(text, unix=True) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7475",
        "127.0.0.1",
        "a:b",
        "a:-1",
        "a:65536",
        "a:" + "9" * 5000,
        "a:",
        "a:٣",
        "::1:7475",
        "[::1]7",
        "[]:0",
        "[localhost]:7475",
        "unix:relative",
        "unix:",
        "unix:/" + "x" * 107,
    ],
)
def test_malformed(text: str) -> None:
    for unix in (False, True):
        with pytest.raises(UsageError, match=r"expected|brackets"):
            parse_listen_address(text, unix=unix)


def test_a_unix_socket_where_it_may_be_one() -> None:
    assert parse_listen_address("unix:/run/relay/web", unix=True) == Path("/run/relay/web")
    assert parse_listen_address("unix:/" + "x" * 106, unix=True)
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        parse_listen_address("unix:/run/relay/web")
