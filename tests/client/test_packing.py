"""relay.client.packing."""

from __future__ import annotations

from relay import limits
from relay.client.packing import pack_records


def test_records_are_full_but_never_over_their_bounds() -> None:
    """By bytes and by number, in order, nothing lost."""
    small = [bytes([n % 251]) for n in range(3000)]
    records = list(pack_records(small))
    assert b"".join(records) == b"".join(small)
    assert [len(r) for r in records] == [1024, 1024, 952]
    large = [bytes(30_000)] * 5
    assert [len(r) for r in pack_records(large)] == [60_000, 60_000, 30_000]
    assert max(map(len, pack_records(large))) <= limits.RECORD_CONTENT_BYTES_MAX
    assert list(pack_records([])) == []
