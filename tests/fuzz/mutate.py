"""Many inputs quickly: saved and legal bytes, changed at random; and the reduction of a finding.

Hypothesis takes a millisecond for each input; parsers that take microseconds need more of them.
Everything is determined by the seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.fuzz.inputs import EDGES, EDIT_KINDS, Edit, edited

REDUCE_S: Final = 10.0
INPUT_BYTES_MAX: Final = 150_000


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return some concatenated seeds, with a few changes."""
    data = b"".join(chance.choice(seeds) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    if chance.random() < 0.003:
        data *= chance.choice(EDGES[:24])
    changes = [
        Edit(
            chance.randrange(EDIT_KINDS),
            chance.randrange(65_536),
            chance.randrange(4097),
            chance.randbytes(chance.choice((1, 1, 2, 4, 8))),
        )
        for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 5)))
    ]
    return edited(data[:INPUT_BYTES_MAX], changes)


def reduced(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """Return a small input that fails as well: parts are removed, and bytes become zero."""
    until = time.monotonic() + REDUCE_S
    size = len(data) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(data) and time.monotonic() < until:
            less = data[:at] + data[at + size :]
            if fails(less):
                data = less
            else:
                at += size
        size //= 2
    for at in range(len(data)):
        zeroed = data[:at] + b"\0" + data[at + 1 :]
        if time.monotonic() < until and zeroed != data and fails(zeroed):
            data = zeroed
    return data
