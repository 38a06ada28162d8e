"""The header in which a proxy names who has connected to it: the PROXY protocol, version 2.

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
"""Addresses take 36, or 216 for Unix-domain sockets; what follows them is not looked at."""
_FIXED: Final = struct.Struct(">12sBBH")
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_V4_BYTES, _V6_BYTES = 4, 16


class BadHeader(Exception):
    """What came is no such header."""


def rest_of(fixed: bytes) -> int:
    """Return how many bytes follow the fixed part.

    Raises:
        BadHeader: it is none.
    """
    signature, version, _, rest = _FIXED.unpack(fixed)
    if signature != SIGNATURE or version >> 4 != _VERSION or version & 0xF > _PROXY:
        raise BadHeader("no header of version 2")
    if rest > REST_BYTES_MAX:
        raise BadHeader("too long")
    return int(rest)


def source(fixed: bytes, rest: bytes) -> str | None:
    """Return the address of who has connected to the proxy; None: the proxy itself has.

    Raises:
        BadHeader: it has none.
    """
    _, version, family, _ = _FIXED.unpack(fixed)
    if version & 0xF == _LOCAL:
        return None  # a health check
    if family == _TCP4 and len(rest) >= 2 * _V4_BYTES + 4:
        return socket.inet_ntop(socket.AF_INET, rest[:_V4_BYTES])
    if family == _TCP6 and len(rest) >= 2 * _V6_BYTES + 4:
        return socket.inet_ntop(socket.AF_INET6, rest[:_V6_BYTES])
    raise BadHeader("no address of TCP over IPv4 or IPv6")
