"""Binding: the forms of addresses, and clear errors when binding fails."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from pathlib import Path

import psutil
import pytest

from relay.errors import StartError
from relay.server.supervisor.listener import (
    bind_all,
    bind_unix,
    format_bound,
    reachable_address,
)


def test_bind_several() -> None:
    sockets = bind_all(("127.0.0.1:0", "[::1]:0"))
    try:
        for sock, host in zip(sockets, ("127.0.0.1", "[::1]"), strict=True):
            assert format_bound(sock) == f"{host}:{sock.getsockname()[1]}"
            assert not sock.getblocking()
            with socket.create_connection(sock.getsockname()[:2]):
                sock.accept()[0].close()
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("bind", [":0", "*:0", "0.0.0.0:0", "[::]:0"])
def test_all_addresses_are_shown_as_one_that_others_can_use(bind: str) -> None:
    """The log has the bound address; clients are shown one that others can connect to."""
    [sock] = bind_all((bind,))
    with sock:
        port = sock.getsockname()[1]
        assert format_bound(sock) == (f"[::]:{port}" if "[" in bind else f"0.0.0.0:{port}")
        host, _, shown_port = reachable_address(sock).rpartition(":")
        assert shown_port == str(port)
        host = host.strip("[]")
        with socket.create_connection((host, port), timeout=60):
            sock.setblocking(True)
            sock.accept()[0].close()
        others = [a for a in addresses(sock.family) if not a.is_loopback and not a.is_link_local]
        if others:
            assert ipaddress.ip_address(host) in others


def addresses(
    family: socket.AddressFamily,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return this machine's addresses on interfaces that are up, if it has a route to others."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1" if family == socket.AF_INET else "2001:db8::1", 9))
        except OSError:
            return []
    return [
        ipaddress.ip_address(address.address.partition("%")[0])
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == family
    ]


def test_in_use() -> None:
    """The error has the address, and nothing stays bound."""
    [taken] = bind_all(("127.0.0.1:0",))
    with taken:
        where = format_bound(taken)
        with pytest.raises(StartError, match=rf"cannot listen on {where}: the port is in use"):
            bind_all(("127.0.0.1:0", where))


@pytest.mark.parametrize("first", ["{host}:{port}", "0.0.0.0:{port}", ":{port}", "unix:{path}"])
def test_an_address_twice(tmp_path: Path, first: str) -> None:
    """The error has the other form: no other program holds the address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    known = {"host": "127.0.0.1", "port": port, "path": tmp_path / "socket"}
    again = first if first.startswith("unix") else "localhost:{port}"
    with pytest.raises(StartError, match=r"cannot listen on .*, another of the addresses"):
        bind_all((first.format(**known), again.format(**known)))


def test_a_path_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(StartError, match="a file that is not a socket"):
            bind_all((f"unix:{path}",))
    assert (tmp_path / "file").exists()


@pytest.mark.parametrize("where", ["192.0.2.1:7475", "no-such-host.invalid:7475"])
def test_cannot_listen(where: str) -> None:
    with pytest.raises(StartError, match=f"cannot listen on {where}: .+; choose another") as caught:
        bind_all((where,))
    assert caught.value.exit_code == 1


def test_a_unix_socket_where_none_can_be(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="its directory does not exist; create it, or choose"):
        bind_unix(tmp_path / "missing" / "s")
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="Not a directory; choose another path"):
        bind_unix(tmp_path / "file" / "s")


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\udcff"])
def test_an_illegal_host_name(host: str) -> None:
    """``getaddrinfo`` raises none of its own errors for these."""
    with pytest.raises(
        StartError, match=r"^cannot listen on .*: not a legal host name; choose another"
    ):
        bind_all((f"{host}:0",))


def test_a_kernel_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """One error, for the IPv6 address; IPv4 addresses still work."""
    real = socket.socket

    def without_ipv6(family: int = -1, *args: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *args, **named)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    for sock in bind_all(("127.0.0.1:0", "0.0.0.0:0")):
        sock.close()
    with pytest.raises(
        StartError, match=r"cannot listen on \[::1\]:0: this machine has no addresses"
    ):
        bind_all(("127.0.0.1:0", "[::1]:0"))


def test_another_listener_that_does_not_accept(tmp_path: Path) -> None:
    """Whether a path has a listener is checked without waiting for it to accept."""
    path = tmp_path / "s"
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(os.fspath(path))
        other.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(os.fspath(path))
        with pytest.raises(StartError, match="another program listens there"):
            bind_unix(path)
