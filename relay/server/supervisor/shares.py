"""Divides resources between processes. Pure."""

from __future__ import annotations


def rebalanced(owner_of: list[int], staying: list[int]) -> list[int]:
    """Return an even assignment of partitions to processes, moving as few as possible.

    Args:
        owner_of: the present owner of each; -1: none.
        staying: the possible owners. If there are none, nothing changes.
    """
    if not staying:
        return owner_of
    least, more = divmod(len(owner_of), len(staying))
    counts = {index: owner_of.count(index) for index in staying}
    # If the numbers cannot be equal, those that own most keep the extra one.
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
