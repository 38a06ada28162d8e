"""The header in which a proxy names its client: the PROXY protocol, version 2.

https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt, section 2.2. Pure.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES: Final = 16
"""The signature, version and command, family, and the length of the rest."""
REST_BYTES_MAX: Final = 1024
"""Addresses take 36 bytes, or 216 for Unix-domain sockets; what follows is ignored."""
_FIXED: Final = struct.Struct(">12sBBH")
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESSLESS: Final = frozenset({0x00, 0x12, 0x22, 0x31, 0x32})
"""Unspecified, UDP and Unix-domain sockets. A receiver that does not support these must accept the
connection (section 2.2); it counts as the proxy's own."""
_V4_BYTES, _V6_BYTES = 4, 16
_VERSION_1: Final = b"PROXY "


class BadHeader(Exception):
    """The bytes are not a valid header."""


def rest_of(fixed: bytes) -> int:
    """Return how many bytes follow the fixed part.

    Raises:
        BadHeader: it is not valid.
    """
    signature, version, _, rest = _FIXED.unpack(fixed)
    if fixed.startswith(_VERSION_1):
        raise BadHeader("a header of version 1, which is not read")
    if signature != SIGNATURE or version >> 4 != _VERSION or version & 0xF > _PROXY:
        raise BadHeader("no header of version 2")
    if rest > REST_BYTES_MAX:
        raise BadHeader("too long")
    return int(rest)


def source(fixed: bytes, rest: bytes) -> str | None:
    """Return the address of the proxy's client; None if the header has none.

    There is none when the proxy itself has connected, or when it has no address of TCP over IPv4 or
    IPv6.

    Raises:
        BadHeader: it is not valid.
    """
    _, version, family, _ = _FIXED.unpack(fixed)
    if version & 0xF == _LOCAL:
        return None  # a health check
    if family == _TCP4 and len(rest) >= 2 * _V4_BYTES + 4:
        return socket.inet_ntop(socket.AF_INET, rest[:_V4_BYTES])
    if family == _TCP6 and len(rest) >= 2 * _V6_BYTES + 4:
        return socket.inet_ntop(socket.AF_INET6, rest[:_V6_BYTES])
    if family in _ADDRESSLESS:
        return None
    raise BadHeader("no address where one is announced, or of no known kind")
