"""Envelopes into records, as many as fit: a burst of sends is a few records and one write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from relay import limits


def pack_records(envelopes: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the contents of records: packed envelopes in order, each record within the bounds."""
    parts: list[bytes] = []
    size = 0
    for packed in envelopes:
        if parts and (
            size + len(packed) > limits.RECORD_CONTENT_BYTES_MAX
            or len(parts) == limits.ENVELOPES_PER_RECORD_MAX
        ):
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(packed)
        size += len(packed)
    if parts:
        yield b"".join(parts)
