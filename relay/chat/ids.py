"""Message ids: who owns them, and why nobody else can use them.

The id of a message is a *producer* and a counter. Every reader of a room sees both, so a producer
is not sent by a client but derived from what only the client and the server know. The visible
values do not allow anybody to send in its place, and with 16 bytes no search finds a collision.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from relay import limits

_LABEL: Final = b"relay/1 producer"
_COPY_LABEL: Final = b"relay/1 direct copy"
NO_ROOT: Final = bytes(32)
"""Instead of an account's root, for a guest."""


def producer_of(root: bytes, handle: str, instance_secret: bytes) -> bytes:
    """Return the producer for messages that a client instance sends under a name.

    SHA-256("relay/1 producer" ‖ root ‖ u8 length of the handle ‖ handle ‖ instance secret), its
    first 16 bytes: docs/protocol.md, "Sending".

    Args:
        root: of the account's device chain; ``NO_ROOT`` for a guest.
        handle: of the account, or the guest's name.
        instance_secret: of the client instance.
    """
    assert len(instance_secret) == limits.INSTANCE_SECRET_BYTES
    assert len(root) == len(NO_ROOT)
    name = handle.encode("ascii")
    digest = sha256(_LABEL + root + bytes((len(name),)) + name + instance_secret)
    return digest.digest()[: limits.PRODUCER_BYTES]


def copy_producer(inbox: str, epoch: bytes) -> bytes:
    """Return the producer for copies of an inbox's messages during one epoch.

    In the recipient's log a copy has its own id: the sender's counters, over messages to everybody,
    must not be revealed.
    """
    return sha256(_COPY_LABEL + epoch + inbox.encode("ascii")).digest()[: limits.PRODUCER_BYTES]
