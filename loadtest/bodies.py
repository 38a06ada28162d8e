"""The body that a simulated user sends: self-checking, with the time when it was due.

The checks of a reader rest on the body alone, not on what the server says about it: who wrote it
(``instance``), its number among that writer's messages to this log, and a checksum.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from pathlib import Path
from typing import Final, NamedTuple

MAGIC: Final = b"relay-load1"
CONTENT_TYPE: Final = "application/x-relay-load"
INSTANCE_BYTES: Final = 8
CLOCK_BYTES: Final = 8
_HEAD: Final = struct.Struct(f">{len(MAGIC)}s{INSTANCE_BYTES}sQQ{CLOCK_BYTES}sI")
BODY_BYTES_MIN: Final = _HEAD.size
FILLER: Final = b"lorem ipsum dolor sit amet, consectetur adipiscing elit; " * 600


class DamagedBody(ValueError):
    """A body of the load test that does not match its checksum."""


class Body(NamedTuple):
    """The head of a body."""

    instance: bytes
    """Of the writer: random, for its whole life."""
    number: int
    """From 1, per writer and log, without a hole."""
    intended_ns: int
    """When the writer meant to send it, by the monotonic clock of its machine."""
    clock: bytes
    """Which clock that is: times of another machine's clock are never compared with ours."""


def this_clock() -> bytes:
    """Return the id of this machine's monotonic clock: all processes of one boot share it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = uuid.getnode().to_bytes(6, "big")
    return hashlib.blake2b(boot, digest_size=CLOCK_BYTES).digest()


def pack_body(body: Body, size: int) -> bytes:
    """Return a body of ``size`` bytes, or of ``BODY_BYTES_MIN`` if that is more."""
    filler = FILLER[: max(0, size - BODY_BYTES_MIN)]
    head = _HEAD.pack(MAGIC, *body, 0)
    return _HEAD.pack(MAGIC, *body, zlib.crc32(filler, zlib.crc32(head))) + filler


def unpack_body(data: bytes) -> Body | None:
    """Return the head; None for a message that no simulated user wrote.

    Raises:
        DamagedBody: the bytes are not those that were sent.
    """
    if not data.startswith(MAGIC):
        return None
    if len(data) < BODY_BYTES_MIN:
        raise DamagedBody(f"a body cut to {len(data)} bytes")
    magic, instance, number, intended_ns, clock, checksum = _HEAD.unpack_from(data)
    body = Body(instance, number, intended_ns, clock)
    head = _HEAD.pack(magic, *body, 0)
    if zlib.crc32(memoryview(data)[BODY_BYTES_MIN:], zlib.crc32(head)) != checksum:
        raise DamagedBody(f"message {number} of {instance.hex()} is not as it was sent")
    return body
