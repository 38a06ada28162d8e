"""Which of several versions of a row a repair takes, in whatever order they are found."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import apsw
import pytest

from relay.chat.entries import Entry, Kind, packable
from relay.chat.partition import partition_of
from relay.store.salvage.carving import Row
from relay.store.salvage.row_versions import RowVersions, entry_of
from relay.store.state import row_id
from relay.store.stub import stub_of
from relay.wire.packing import pack_entry, unpack_entry

LOG = "lobby"


def entry(seq: int, body: bytes = b"tea") -> Entry:
    return Entry(
        LOG, b"e" * 8, seq, seq - 1, 1000 + seq, "ann", b"k" * 8, b"p" * 16, seq,
        int(Kind.MESSAGE), "", body,
    )  # fmt: skip


def erased(one: Entry) -> Entry:
    return one._replace(kind=int(Kind.ERASED), body=b"", about_epoch=b"e" * 8, about_seq=9)


def row(one: Entry, packed: bytes | None = None) -> Row:
    content = pack_entry(packable(one)) if packed is None else packed
    return row_id(1, one.seq), one.time_ms, 0, 0, content


def unpack(one: Row) -> Entry | None:
    return entry_of(unpack_entry, partition_of(LOG), one)


def names_of(counted: Counter[tuple[int, str]]) -> dict[int, str]:
    return dict(counted)


SECRET = entry(3, b"secret")
REMOVED = row(SECRET, stub_of(SECRET))


@pytest.mark.parametrize("first", [(1, 2), (1, 2, 4)], ids=["the end", "a hole"])
@pytest.mark.parametrize(
    ("versions", "taken"),
    [
        ((row(SECRET), row(erased(SECRET))), row(erased(SECRET))),
        ((row(SECRET), row(erased(SECRET)), REMOVED), REMOVED),
    ],
    ids=["erased", "removed"],
)
def test_what_one_version_has_erased_or_removed_is_not_taken_from_another(
    first: tuple[int, ...], versions: tuple[Row, ...], taken: Row
) -> None:
    for order in permutations(versions):
        connection = apsw.Connection(":memory:")
        found = RowVersions(connection)
        found.add([row(entry(seq)) for seq in first], first=True)
        found.add(order, first=False)
        found.add([row(entry(4))], first=False)
        found.settle(unpack, names_of)
        assert [one for one in found.rows() if one[0] == row_id(1, 3)] == [taken]
        connection.close()
