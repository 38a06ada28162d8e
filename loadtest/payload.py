"""How long messages are."""

from __future__ import annotations

import random
from typing import Final

from relay import limits
from relay.errors import UsageError

TYPED_BYTES_MAX: Final = 2000


def payload_size(payload: str, source: random.Random) -> int:
    """Return the bytes of the next body. Raises UsageError."""
    kind, *numbers = payload.split(":")
    match kind, [int(number) for number in numbers if number.isdecimal()]:
        case "typed", []:
            # Chat messages: the median is about 40 characters, few are longer than 300.
            return min(round(source.lognormvariate(3.7, 0.9)) + 1, TYPED_BYTES_MAX)
        case "fixed", [size] if size <= limits.BODY_BYTES_MAX:
            return size
        case "uniform", [least, most] if least <= most <= limits.BODY_BYTES_MAX:
            return source.randint(least, most)
    raise UsageError(f"--payload {payload}: expected typed, fixed:N or uniform:MIN:MAX")
