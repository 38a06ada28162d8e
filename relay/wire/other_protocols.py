"""Recognises servers of other protocols by their first bytes."""

from __future__ import annotations

from typing import Final

NOT_RELAY: Final = "this is not a Relay server"
_STRANGERS: Final = (
    (b"HTTP/", "HTTP"),
    (b"SSH-", "SSH"),
    (b"\x15\x03", "TLS"),
    (b"\x16\x03", "TLS"),
    (b"220", "SMTP or FTP"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"INFO {", "NATS"),
    (b"RFB ", "VNC"),
)
"""How servers of other protocols begin."""


def described(data: bytes) -> str:
    """Describe a peer whose first bytes cannot be a Relay server's."""
    for start, protocol in _STRANGERS:
        if data.startswith(start):
            return f"{NOT_RELAY}: it speaks {protocol}"
    return NOT_RELAY
