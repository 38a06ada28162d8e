"""The source of a connection, as every budget and queue by source defines it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

UNIX: Final = "unix"
"""Stands for the address of whoever connects to a Unix-domain socket."""
LOOPBACK_V4_NET: Final = 127
"""The first byte of 127.0.0.0/8."""


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address.

    Whoever has one IPv6 address has 2**64 of them. Anything else stands for itself.
    """
    if _v4(address) is not None:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> 64:016x}/64"


class Proxies:
    """Whose word counts about who has connected to them (setting ``server.proxies``)."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._unix = UNIX in networks
        self._networks = [
            ipaddress.ip_network(text) for text in networks if text not in (UNIX, "none")
        ]

    def has(self, address: str) -> bool:
        """Tell whether a peer is one; ``UNIX`` is the address of all Unix-domain sockets."""
        if address == UNIX:
            return self._unix
        if not self._networks:
            return False
        parsed = ipaddress.ip_address(address.partition("%")[0])
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks)


def is_loopback(address: str) -> bool:
    """Tell whether an address is of this machine's loopback: 127.0.0.0/8, ::1, or mapped so."""
    v4 = _v4(address)
    if v4 is not None:
        return v4[0] == LOOPBACK_V4_NET
    if address == UNIX:
        return True
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return (parsed.ipv4_mapped or parsed).is_loopback


def _v4(address: str) -> bytes | None:
    """Return the bytes of an IPv4 address. Nearly all are, and each has this one spelling.

    ``ipaddress`` takes thirty calls of Python for it, each time that somebody connects.
    """
    try:
        return socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return None
