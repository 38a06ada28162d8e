"""Entries read from our own store are checked as clients check them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import codec
from relay.errors import EnvelopeError
from relay.wire.envelopes import EntryMessage, Op
from relay.wire.packing import pack_entry, unpack_entry, unpack_server

GOOD = ("lobby", bytes(8), 2, 1, 3, "alice", bytes(16), bytes(16), 1, 0, "text/plain", b"hello")
OTHERS = [
    None, True, -1, 0, 1, 2**63 - 1, 2**63, 1.5, "", "a", "é", "x" * 34, b"", bytes(7), bytes(8),
    bytes(16), bytes(33), bytes(65_537), [], [1],
]  # fmt: skip


@given(st.integers(0, len(GOOD)), st.sampled_from(OTHERS), st.integers(0, len(GOOD)))
def test_an_entry_is_what_a_client_takes(field: int, value: object, other: int) -> None:
    """Also by the fast check of all fields at once."""
    fields: list[object] = [int(Op.ENTRY), *GOOD]
    fields[field] = fields[other] = value
    packed = codec.pack(fields)
    taken: object = None
    with contextlib.suppress(EnvelopeError):
        taken = unpack_server(packed)
    if isinstance(taken, list) and isinstance(taken[0], EntryMessage):
        assert unpack_entry(packed) == taken[0]
    else:
        with pytest.raises(EnvelopeError):
            unpack_entry(packed)


def test_whole_entries() -> None:
    for extra in ((), ("bob", bytes(8), 7)):
        packed = pack_entry((*GOOD, *extra))
        assert [unpack_entry(packed)] == unpack_server(packed)
    later = codec.pack([int(Op.ENTRY), *GOOD, "", b"", 0, "of a later version"])
    assert [unpack_entry(later)] == unpack_server(later)
