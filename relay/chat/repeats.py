"""Finds the original of a repeated counter, however old: a deterministic skip list.

Every entry refers to two earlier ones of its producer in its log: ``chain``, the entry of counter -
1, and ``jump``, the entry of the counter whose lowest set bit is cleared (for 12 = 0b1100: 8).
Going down from the last counter to any other takes O(log n) steps on average, so an old id costs a
hostile sender as much as it costs us, without an index of ids (which would cost more per append
than the rest of it).
"""

from __future__ import annotations

from collections.abc import Callable

Stack = tuple[int, ...]
"""The seqs of a counter and of the counters below its set bits, the counter's own last: for 12
those of (8, 12). All that an append needs to know about the past. 0: no longer kept."""
Links = Callable[[int], tuple[int, int] | None]
"""seq -> its (chain, jump), or None if it is no longer kept."""


def below(counter: int) -> int:
    """Return the counter that ``jump`` leads to; 0: none."""
    return counter & counter - 1


def pushed(stack: Stack, counter: int, seq: int) -> tuple[int, int, Stack]:
    """Return (chain, jump, next stack) of an entry, given the stack of the counter before it."""
    chain = stack[-1] if stack else 0
    ended = (counter & -counter).bit_length() - 1  # the set bits that end with counter - 1
    if ended:
        stack = stack[:-ended]
    return chain, stack[-1] if stack else 0, (*stack, seq)


def rebuilt(counter: int, seq: int, links: Links) -> Stack:
    """Return the stack of a producer's last entry, rebuilt from its jumps."""
    reverse = [seq]
    counter = below(counter)
    while counter:
        found = links(seq) if seq else None
        seq = 0 if found is None else found[1]
        reverse.append(seq)
        counter = below(counter)
    return tuple(reversed(reverse))


class Descent:
    """Searches down from a producer's last entry.

    Resends in order are found near the previous one.
    """

    def __init__(self, counter: int, seq: int) -> None:
        self.counter = counter
        """Where it began: it finds this counter and lower ones."""
        self._path = [(counter, seq)]

    def find(self, wanted: int, links: Links) -> int:
        """Return the seq of a counter; 0 if it is no longer kept."""
        path = self._path
        while len(path) > 1 and path[-1][0] < wanted:
            path.pop()
        at, seq = path[-1]
        assert wanted <= at
        while at > wanted and seq:
            found = links(seq)
            if found is None:
                return 0
            chain, jump = found
            at, seq = (below(at), jump) if below(at) >= wanted else (at - 1, chain)
            path.append((at, seq))
        return seq
