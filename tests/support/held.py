"""The memory of an object and everything that is reachable only from it."""

from __future__ import annotations

import gc
import sys
import types
from typing import Final

_SHARED: Final = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def held_bytes(root: object) -> int:
    """Return the bytes of the graph of objects behind ``root``; code and types do not count."""
    seen: set[int] = set()
    total = 0
    level: list[object] = [root]
    while level:
        found = level.pop()
        if id(found) in seen or isinstance(found, _SHARED):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        level += gc.get_referents(found)
    return total
