"""The invariant "Once, in order" as a decision."""

from __future__ import annotations

import pytest

from relay.chat.dedup import Place, place
from relay.limits import REPEATS_BACK_MAX, SENDS_UNACKNOWLEDGED_MAX, U63_MAX


@pytest.mark.parametrize(
    ("counter", "last", "found"),
    [
        (1, 0, Place.NEXT),
        (2, 0, Place.UNKNOWN),
        (U63_MAX, 0, Place.UNKNOWN),
        (1, 1, Place.USED),
        (2, 1, Place.NEXT),
        (3, 1, Place.SKIPPED),
        (U63_MAX, U63_MAX - 1, Place.NEXT),
        (10**6 - SENDS_UNACKNOWLEDGED_MAX, 10**6, Place.USED),
        (10**6 - REPEATS_BACK_MAX + 1, 10**6, Place.USED),
        (10**6 - REPEATS_BACK_MAX, 10**6, Place.USED_LONG_AGO),
        (1, U63_MAX, Place.USED_LONG_AGO),
    ],
)
def test_where_a_counter_stands(counter: int, last: int, found: Place) -> None:
    assert place(counter, last) is found
