"""Finding the original of a repeated counter, however long ago: a deterministic skip list.

Every entry names two earlier ones of its producer in its log: ``chain``, the entry of counter - 1,
and ``jump``, the entry of the counter whose lowest set bit is cleared (of 12 = 0b1100: 8). Going
down from the last counter to any other takes O(log n) steps on average, so an old id costs a
hostile sender as much as it costs us, without an index over ids (which costs more per append than
the rest of it).
"""

from __future__ import annotations

from collections.abc import Callable

Stack = tuple[int, ...]
"""The seqs of a counter and of the counters under its set bits, the counter's own last: of 12
those of (8, 12). It is what an append needs to know of the past. 0: not kept any more."""
Links = Callable[[int], tuple[int, int] | None]
"""seq -> its (chain, jump), or None when it is no longer kept."""


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
    """Return the stack of a producer's last entry, read back by its jumps."""
    reverse = [seq]
    counter = below(counter)
    while counter:
        found = links(seq) if seq else None
        seq = 0 if found is None else found[1]
        reverse.append(seq)
        counter = below(counter)
    return tuple(reversed(reverse))


class Descent:
    """Goes down from a producer's last entry; the next one of a resend in order is near its end."""

    def __init__(self, counter: int, seq: int) -> None:
        self.counter = counter
        """Where it began: it finds this one and those below."""
        self._path = [(counter, seq)]

    def find(self, wanted: int, links: Links) -> int:
        """Return the seq of a counter; 0 when it is no longer kept."""
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
