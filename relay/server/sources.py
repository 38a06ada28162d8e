"""The source of a connection, as used by every budget and queue by source."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

UNIX: Final = "unix"
"""Stands for the address of peers on a Unix-domain socket."""
LOOPBACK_V4_NET: Final = 127
"""The first byte of 127.0.0.0/8."""


def source_of(address: str) -> str:
    """Return the source of an address: an IPv4 address, or the /64 of an IPv6 address.

    A user with one IPv6 address has 2**64 of them. Anything else stands for itself.
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
    """Peers trusted to name their clients (setting ``server.proxies``)."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._unix = UNIX in networks
        self._networks = [
            ipaddress.ip_network(text) for text in networks if text not in (UNIX, "none")
        ]

    def has(self, address: str) -> bool:
        """Return True if a peer is one; ``UNIX`` is the address of all Unix-domain sockets."""
        if address == UNIX:
            return self._unix
        if not self._networks:
            return False
        parsed = ipaddress.ip_address(address.partition("%")[0])
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._networks)


def is_loopback(address: str) -> bool:
    """Return True for loopback addresses: 127.0.0.0/8, ::1, or mapped ones."""
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


def named_by(proxy: str, address: str | None) -> str:
    """Return the address that a connection of a proxy counts as.

    A loopback address, or that of no machine, names the proxy's own machine, and a header may have
    no address: then it is the proxy's.
    """
    if address is None or is_loopback(address) or ipaddress.ip_address(address).is_unspecified:
        return proxy
    return address


def _v4(address: str) -> bytes | None:
    """Return the bytes of an IPv4 address in its only spelling: the common case.

    ``ipaddress`` makes thirty Python calls for this, for each connection.
    """
    try:
        return socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return None
