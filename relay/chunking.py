"""Cuts a sequence into pieces of limited size: packed items into records, rows into pages.

There is one rule: a piece takes items in order as long as they fit, and at least one, so that no
item blocks the rest. The size of a single item is limited elsewhere (``relay.limits``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TypeVar

T = TypeVar("T")


def count_fitting(sizes: Iterable[int], bytes_max: int, count_max: int | None = None) -> int:
    """Return how many of the first items fit one piece: at least 1 if there is any, otherwise 0.

    Reads ``sizes`` only up to the first item that does not fit, so it may be a generator that reads
    the items as it goes; if it has yielded more than fit, there are more items.

    Args:
        sizes: of each item, in bytes.
        bytes_max: of the whole piece.
        count_max: items in the piece, at least 1; None: any number.
    """
    return next(_ends(sizes, bytes_max, count_max), 0)


def chunks(
    items: Sequence[T],
    *,
    sizes: Iterable[int] | None = None,
    bytes_max: int = 0,
    count_max: int | None = None,
) -> list[Sequence[T]]:
    """Cut items into consecutive pieces, each as large as the limits allow. No items: no pieces.

    If all items fit one piece, they are returned as they are, not copied.

    Args:
        items: to be cut.
        sizes: of each item, in bytes; None: only the number is limited.
        bytes_max: of a piece.
        count_max: items in a piece, at least 1; None: any number.
    """
    sizes = repeat(0, len(items)) if sizes is None else sizes
    pieces: list[Sequence[T]] = []
    start = 0
    for end in _ends(sizes, bytes_max, count_max):
        pieces.append(items if end - start == len(items) else items[start:end])
        start = end
    assert start == len(items)
    return pieces


def _ends(sizes: Iterable[int], bytes_max: int, count_max: int | None) -> Iterator[int]:
    """Yield the index after each piece as soon as it is known."""
    start = total = end = 0
    for size in sizes:
        total += size
        if end > start and (total > bytes_max or end - start == count_max):
            yield end
            start, total = end, size
        end += 1
    if end > start:
        yield end
