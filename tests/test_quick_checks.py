"""The fast checks of common values accept nothing that the full checks refuse."""

from __future__ import annotations

from typing import Final

import pytest

from relay import limits
from relay.bus import packing as bus
from relay.bus.messages import ITEMS_PER_MESSAGE, Acks, Batch, Submit
from relay.codec import Quick, Shape
from relay.wire import packing as wire
from relay.wire.envelopes import Send

QUICK: Final[list[tuple[Shape, Quick]]] = [
    (shapes[op], check)
    for shapes, quick in ((wire.CLIENT_SHAPES, wire.QUICK), (bus.SHAPES, bus.QUICK))
    for op, check in quick.items()
]
GOOD: Final[dict[type, list[object]]] = {
    Send: ["lobby", 1, 0, "", b"text"],
    Submit: [
        16, [b"next"], "lobby", "ann", b"", bytes(16), 1, 0, "", b"text", b"", False,
        bytes(8), None,
    ],
    Acks: [[[16, bytes(8), 1, 1], [32, bytes(8), 7, 3]]],
    Batch: ["lobby", 0, bytes(8), 1, 1, b"entry", False],
}  # fmt: skip
SIZES: Final = (
    *range(70), limits.BODY_BYTES_MAX, limits.BODY_BYTES_MAX + 1, limits.RECORD_CONTENT_BYTES_MAX,
    limits.RECORD_CONTENT_BYTES_MAX + 1,
)  # fmt: skip
ODD: Final[tuple[object, ...]] = (
    None, True, False, 1.0, -1, 0, 1, 255, 256, ITEMS_PER_MESSAGE, ITEMS_PER_MESSAGE + 1,
    *(2**bits + less for bits in (32, 63, 64) for less in (-1, 0)),
    *(b"x" * size for size in SIZES), bytearray(8), *("x" * size for size in SIZES), "\xe9" * 17,
    [], [b""], [1], ["x"], [None], [b"x"] * ITEMS_PER_MESSAGE, [b"x"] * (ITEMS_PER_MESSAGE + 1),
    [b"x", b"x" * (limits.BODY_BYTES_MAX + 1)], (b"x",), [[]], [[1, bytes(8), 1]],
)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "quick"), QUICK, ids=lambda one: getattr(one, "type", one).__name__
)
def test_nothing_else_is_taken_at_once(shape: Shape, quick: Quick) -> None:
    """Each field is replaced by unusual values, and so is each element of a list."""
    good = GOOD[shape.type]
    assert quick(good), "the usual case"
    tried: list[list[object]] = [good]
    tried += [[*good[:at], odd, *good[at + 1 :]] for at in range(len(good)) for odd in ODD]
    if shape.type is Acks:
        item: list[object] = [16, bytes(8), 1, 1]
        items = [[*item[:at], odd, *item[at + 1 :]] for at in range(len(item)) for odd in ODD]
        for odd in items:
            tried.append([[odd]])
            tried.append([[item, odd]])
        tried.append([[item] * ITEMS_PER_MESSAGE])
        tried.append([[item] * (ITEMS_PER_MESSAGE + 1)])
    for fields in tried:
        if quick(fields):
            taken = [check(field) for check, field in zip(shape.checks, fields, strict=True)]
            assert all(taken), f"{shape.type.__name__} of {str(fields)[:200]}"


def test_all_of_them_are_tried() -> None:
    assert {shape.type for shape, _ in QUICK} == set(GOOD)
