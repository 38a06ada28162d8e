"""Packs envelopes into records, as many as fit: a burst of sends is a few records and one write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from relay import limits
from relay.chunking import chunks


def pack_records(envelopes: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the contents of records: packed envelopes in order, each record within the limits."""
    packed = list(envelopes)
    for record in chunks(
        packed,
        sizes=map(len, packed),
        bytes_max=limits.RECORD_CONTENT_BYTES_MAX,
        count_max=limits.ENVELOPES_PER_RECORD_MAX,
    ):
        yield b"".join(record)
