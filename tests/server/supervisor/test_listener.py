"""Binding: forms of addresses, and clear words when one cannot be had."""

from __future__ import annotations

import socket

import pytest

from relay.errors import StartError, UsageError
from relay.server.supervisor.listener import bind_all, format_address, parse_bind


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("127.0.0.1:7475", ("127.0.0.1", 7475)),
        ("[::1]:0", ("::1", 0)),
        (":7475", ("0.0.0.0", 7475)),  # noqa: S104
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_parse(text: str, parsed: tuple[str, int]) -> None:
    assert parse_bind(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "7475", "127.0.0.1", "a:b", "a:-1", "a:65536", "a:", "a:٣", "::1:7475", "[::1]7"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(UsageError, match="--bind"):
        parse_bind(text)


def test_bind_several() -> None:
    sockets = bind_all(("127.0.0.1:0", "[::1]:0"))
    try:
        for sock, host in zip(sockets, ("127.0.0.1", "[::1]"), strict=True):
            assert format_address(sock) == f"{host}:{sock.getsockname()[1]}"
            assert not sock.getblocking()
            with socket.create_connection(sock.getsockname()[:2]):
                sock.accept()[0].close()
    finally:
        for sock in sockets:
            sock.close()


def test_all_addresses_are_shown_as_one_that_can_be_dialled() -> None:
    sockets = bind_all((":0", "[::]:0"))
    shown = [format_address(sock).rpartition(":")[0] for sock in sockets]
    for sock in sockets:
        sock.close()
    assert shown == ["127.0.0.1", "[::1]"]


def test_in_use() -> None:
    """The address is named, and nothing stays bound."""
    [taken] = bind_all(("127.0.0.1:0",))
    with taken:
        where = format_address(taken)
        with pytest.raises(StartError, match=rf"cannot listen on {where}: the port is in use"):
            bind_all(("127.0.0.1:0", where))


@pytest.mark.parametrize("where", ["192.0.2.1:7475", "no-such-host.invalid:7475"])
def test_cannot_listen(where: str) -> None:
    with pytest.raises(StartError, match=f"cannot listen on {where}") as caught:
        bind_all((where,))
    assert caught.value.exit_code == 1
