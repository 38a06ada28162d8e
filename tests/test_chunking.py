"""Splitting items into records: within bounds, at least one item each, in order, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from relay.chunking import chunks, count_fitting

ITEMS = st.lists(st.binary(max_size=12), max_size=40)


@given(items=ITEMS, bytes_max=st.integers(1, 20), count_max=st.none() | st.integers(1, 9))
def test_pieces_are_as_large_as_the_bounds_allow(
    items: list[bytes], bytes_max: int, count_max: int | None
) -> None:
    pieces = chunks(items, sizes=map(len, items), bytes_max=bytes_max, count_max=count_max)
    assert [item for piece in pieces for item in piece] == items
    for index, piece in enumerate(pieces):
        size = sum(map(len, piece))
        assert len(piece) == 1 or size <= bytes_max
        assert count_max is None or 0 < len(piece) <= count_max
        if index + 1 < len(pieces):
            full = size + len(pieces[index + 1][0]) > bytes_max
            assert full or len(piece) == count_max, "the next item had room in this piece"
    assert count_fitting(map(len, items), bytes_max, count_max) == len(pieces[0] if pieces else [])


@given(items=ITEMS, count_max=st.integers(1, 9))
def test_without_sizes_only_the_number_counts(items: list[bytes], count_max: int) -> None:
    found = chunks(items, count_max=count_max)
    assert found == [items[at : at + count_max] for at in range(0, len(items), count_max)]


def test_what_fits_whole_is_not_copied() -> None:
    items = [b"one", b"two"]
    assert chunks(items, sizes=[3, 3], bytes_max=6)[0] is items


def test_an_item_above_the_bound_is_a_piece_of_its_own() -> None:
    items = [b"a", b"b" * 9, b"c", b"d"]
    pieces = chunks(items, sizes=map(len, items), bytes_max=4)
    assert pieces == [[b"a"], [b"b" * 9], [b"c", b"d"]]


def test_no_more_is_read_than_the_first_that_does_not_fit() -> None:
    read: list[int] = []

    def reading() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield 10

    assert count_fitting(reading(), bytes_max=35) == 3
    assert read == [0, 1, 2, 3]
    read.clear()
    assert count_fitting(reading(), bytes_max=10_000, count_max=5) == 5
    assert read == [0, 1, 2, 3, 4, 5]
    read.clear()
    assert count_fitting(iter(()), bytes_max=1) == 0
