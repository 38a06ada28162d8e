"""Parses an address to listen on. A pure function: nothing is looked up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from relay.errors import UsageError

UNIX: Final = "unix:"
AUTO: Final = "auto"
"""Selects an address automatically."""
OFF: Final = "off"
"""No address, where that is allowed."""
UNIX_PATH_BYTES_MAX: Final = 107
"""The kernel's limit for the path of a socket, without the terminator."""
_PORT_DIGITS_MAX: Final = 5


def parse_listen_address(
    text: str, *, unix: bool = False, words: bool = False
) -> tuple[str, int] | Path:
    """Return (host, port) of HOST:PORT or [IPV6]:PORT. An empty host or * means all IPv4 addresses.

    Args:
        text: the address.
        unix: also accept unix:PATH, returned as a path.
        words: mention ``AUTO`` and ``OFF`` in the error message.

    Raises:
        UsageError: another form; the message does not repeat the text.
    """
    if unix and text.startswith(UNIX):
        path = Path(text.removeprefix(UNIX))
        if not path.is_absolute() or "\0" in text:
            raise UsageError("expected a full path after unix:, as in unix:/run/relay/control")
        if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
            raise UsageError(f"expected a path of at most {UNIX_PATH_BYTES_MAX} bytes after unix:")
        return path
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed is not (":" in host):
        raise UsageError("write an IPv6 address, and no other, in brackets, as in [::1]:7475")
    host = host[1:-1] if bracketed else host
    digits = port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS_MAX
    if not colon or not digits or int(port) > 65535:
        also = ", unix:PATH, auto or off" if words else " or unix:PATH" if unix else ""
        raise UsageError(f"expected HOST:PORT with a port from 0 to 65535{also}")
    return "0.0.0.0" if host in ("", "*") else host, int(port)  # noqa: S104  # as asked for
