"""Addresses of relays: ``relay://[FINGERPRINT@]HOST[:PORT]`` (docs/protocol.md, "Addresses")."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from typing import Final, NamedTuple

from relay.errors import UsageError

SCHEME: Final = "relay://"
PORT_DEFAULT: Final = 7475
FORM: Final = "relay://[FINGERPRINT@]HOST[:PORT]"
FINGERPRINT_CHARS: Final = 52
LABEL_CHARS_MAX: Final = 63
"""Of a label of a host's name. No resolver accepts longer or empty ones."""
_ALPHABET: Final = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_FINGERPRINT: Final = re.compile(r"[a-z2-7]{51}[aq]")
"""SHA-256 in lowercase base32 without padding: 52 characters; the last one carries a single bit."""
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")
_NUMBER: Final = r"(?:0[xX][0-9A-Fa-f]{1,8}|[0-9]{1,11})"
_NUMBERS: Final = re.compile(rf"{_NUMBER}(?:\.{_NUMBER}){{0,3}}")
"""Forms of an IPv4 address that resolvers accept: 127.1, 0x7f000001."""
_HOST_V6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,32})?")


class Address(NamedTuple):
    """Where a relay listens, and the fingerprint that its key must have (None: not stated)."""

    host: str
    port: int = PORT_DEFAULT
    fingerprint: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        key = "" if self.fingerprint is None else f"{self.fingerprint}@"
        return f"{SCHEME}{key}{host}:{self.port}"


def is_fingerprint(text: str) -> bool:
    """True for the full fingerprint of a server key, in Relay's notation."""
    return _FINGERPRINT.fullmatch(text) is not None


def fingerprint_mistake(text: str) -> str | None:
    """Return what is wrong with a fingerprint that a person typed, or None if it is well-formed."""
    if is_fingerprint(text):
        return None
    if len(text) != FINGERPRINT_CHARS:
        return f"the fingerprint has {len(text)} characters instead of {FINGERPRINT_CHARS}"
    if is_fingerprint(text.lower()):
        return "the fingerprint must be in lower case"
    for place, char in enumerate(text, 1):
        if char.lower() not in _ALPHABET:
            return f"character {place} of the fingerprint is {char!r}; it has only a-z and 2-7"
    return f"the last character of the fingerprint is {text[-1]!r}; it can only be a or q"


def parse_address(text: str) -> Address:
    """Parse an address that a person typed. The scheme may be omitted.

    Raises:
        UsageError: it is not an address; names the part that is wrong.
    """
    rest = text.strip()
    if "://" in rest and not rest.startswith(SCHEME):
        raise _wrong(text, "it does not begin with relay://")
    rest = rest.removeprefix(SCHEME).removesuffix("/")
    key, at, place = rest.rpartition("@")
    if at and (mistake := fingerprint_mistake(key)):
        raise _wrong(text, mistake)
    host, port = _split_port(text, place)
    return Address(host, port, key if at else None)


def _split_port(text: str, place: str) -> tuple[str, int]:
    if place.startswith("["):
        host, bracket, tail = place[1:].partition("]")
        if not bracket or not _is_v6(host) or (tail and not tail.startswith(":")):
            raise _wrong(text, "the IPv6 host is not well-formed")
        port = tail[1:] if tail else str(PORT_DEFAULT)
    else:
        host, colon, port = place.partition(":")
        if ":" in port:
            raise _wrong(text, "an IPv6 host must be in brackets")
        labels = host.removesuffix(".").split(".")
        if not _HOST.fullmatch(host) or not all(map(_is_label, labels)):
            raise _wrong(text, "the host is missing or not a name or an address")
        if not colon:
            port = str(PORT_DEFAULT)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise _wrong(text, "the port is not a number from 1 to 65535")
    return canonical_host(host), int(port)


def _is_label(text: str) -> bool:
    """Return True for a part of a host's name; with a ``-`` at its beginning it is an option."""
    return 0 < len(text) <= LABEL_CHARS_MAX and not text.startswith("-")


def canonical_host(host: str) -> str:
    """Return the one spelling of a host: lower case, and the usual form of an IP address.

    A server that is known is known by each spelling. What is no host is returned in lower case.
    """
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            return host.lower()
        mapped = address.ipv4_mapped  # its own text depends on the version of Python
        return str(address if mapped is None else mapped)
    if _NUMBERS.fullmatch(host):
        with contextlib.suppress(OSError):
            return socket.inet_ntoa(socket.inet_aton(host))
    return host.lower()


def _is_v6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return _HOST_V6.fullmatch(host) is not None  # a zone consists of plain characters, too


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"not an address of a relay: {text!r}: {why}; expected {FORM}")
