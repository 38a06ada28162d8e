"""The bytes that a device signs to log in: bound to this connection, server, operation and name.

docs/protocol.md, "Login": a signature can be neither replayed on another connection, nor relayed to
another server, nor used for another operation, name or protocol.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from relay.wire.device_keys import KEY_BYTES, verify

_PREFIX: Final = b" " * 64 + b"relay/1 client login\0"


class Operation(IntEnum):
    """The purpose of a signature."""

    LOGIN = 1
    REGISTER = 2
    ADD_DEVICE = 3


def signed_bytes(
    operation: Operation, login_binding: bytes, spki_hash: bytes, key: bytes, handle: str
) -> bytes:
    """Return the bytes to sign.

    Args:
        operation: its purpose.
        login_binding: of this connection (``Connection.login_binding``).
        spki_hash: SHA-256 of the server's key.
        key: the device's public key.
        handle: in its canonical spelling.
    """
    assert len(login_binding) == len(spki_hash) == len(key) == 32
    name = handle.encode("ascii")
    return b"".join(
        (_PREFIX, bytes((operation,)), login_binding, spki_hash, key, bytes((len(name),)), name)
    )


def proves(
    operation: Operation,
    login_binding: bytes,
    spki_hash: bytes,
    key: bytes,
    handle: str,
    signature: bytes,
) -> bool:
    """Return True if a signature proves that the peer of this connection has the key."""
    if len(key) != KEY_BYTES:
        return False
    return verify(key, signature, signed_bytes(operation, login_binding, spki_hash, key, handle))
