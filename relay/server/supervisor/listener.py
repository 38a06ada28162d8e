"""The listening sockets, bound once and shared by all workers."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from relay.errors import StartError, UsageError

BACKLOG: Final = 4096
"""Connections that wait while workers are restarted. The kernel lowers it to net.core.somaxconn."""


def parse_bind(text: str) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT or [IPV6]:PORT. An empty host means all IPv4 addresses.

    Raises:
        UsageError: not of that form.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"--bind {text}: write an IPv6 address in brackets: [{host}]:{port}")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--bind {text}: expected HOST:PORT with a port from 0 to 65535")
    return host or "0.0.0.0", int(port)  # noqa: S104 - asked for in so many words


def bind_all(binds: tuple[str, ...]) -> tuple[socket.socket, ...]:
    """Bind every address and listen.

    Raises:
        UsageError: an address is malformed.
        StartError: an address cannot be had; the message names it and says what to do.
    """
    addresses = [parse_bind(text) for text in binds]
    sockets: list[socket.socket] = []
    try:
        for host, port in addresses:
            sockets.append(_bind(host, port))
    except StartError:
        for bound in sockets:
            bound.close()
        raise
    return tuple(sockets)


def format_address(sock: socket.socket) -> str:
    """Return HOST:PORT as a client on this machine would write it."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartError(f"cannot listen on {where}: {error.strerror}") from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] and 0.0.0.0 are two addresses, on every system alike.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {where}: {_advice(error)}") from None
    sock.setblocking(False)
    return sock


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop the program that has it, or choose another with --bind"
    if error.errno == errno.EACCES:
        return "not permitted; ports below 1024 need a privilege, choose another with --bind"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose another with --bind"
    return os.strerror(error.errno or 0)
