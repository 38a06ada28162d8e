"""What counts as one source of connections, for every budget and queue that is kept by source."""

from __future__ import annotations

import ipaddress


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 address.

    Whoever has one IPv6 address has 2**64 of them. Anything else stands for itself.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> 64:016x}/64"


def is_loopback(address: str) -> bool:
    """Tell whether an address is of this machine's loopback: 127.0.0.0/8, ::1, or mapped so."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback
