"""Divides resources between processes. Pure."""

from __future__ import annotations


def rebalanced(owner_of: list[int], staying: list[int]) -> list[int]:
    """Return who owns each partition, evenly, moving as few as can be.

    Args:
        owner_of: who owns each now; -1: nobody.
        staying: who may own any. If that is nobody, nothing changes.
    """
    if not staying:
        return owner_of
    least, more = divmod(len(owner_of), len(staying))
    counts = {index: owner_of.count(index) for index in staying}
    # The ones that have most keep the one more that some must have.
    ranked = sorted(staying, key=lambda index: (-counts[index], index))
    share = {index: least + (rank < more) for rank, index in enumerate(ranked)}
    found = list(owner_of)
    free = []
    for partition, owner in enumerate(owner_of):
        if share.get(owner):
            share[owner] -= 1
        else:
            free.append(partition)
    for index in staying:
        for _ in range(share[index]):
            found[free.pop(0)] = index
    return found
