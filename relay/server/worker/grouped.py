"""A multimap whose groups mostly have one member: no dict is made for that one.

A dict takes about 200 bytes, and a worker has one group for each connection in several places.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar, cast, final

Group = TypeVar("Group")
Key = TypeVar("Key")
Value = TypeVar("Value")


@final
class Grouped(Generic[Group, Key, Value]):
    """Values by their group and their key in it, in the order in which they came."""

    __slots__ = ("_groups", "_key_of")

    def __init__(self, key_of: Callable[[Value], Key]) -> None:
        """Begin with none.

        Args:
            key_of: returns the key of a value, always the same one. No value is a dict.
        """
        self._key_of = key_of
        self._groups: dict[Group, Value | dict[Key, Value]] = {}

    def __contains__(self, group: Group) -> bool:
        return group in self._groups

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, group: Group, value: Value) -> None:
        """Add a value, in the place of the one with its key, if there is one."""
        there = self._groups.get(group)
        if there is None:
            self._groups[group] = value
        elif isinstance(there, dict):
            there[self._key_of(value)] = value
        else:
            key, other = self._key_of(value), self._key_of(there)
            self._groups[group] = value if key == other else {other: there, key: value}

    def get(self, group: Group, key: Key) -> Value | None:
        """Return a value; None: there is none."""
        there = self._groups.get(group)
        if there is None:
            return None
        if isinstance(there, dict):
            return cast("dict[Key, Value]", there).get(key)
        return there if self._key_of(there) == key else None

    def remove(self, group: Group, key: Key) -> bool:
        """Remove a value that is there. Returns True when it was the last one of its group."""
        there = self._groups[group]
        if not isinstance(there, dict):
            assert self._key_of(there) == key, "what is removed is there"
            del self._groups[group]
            return True
        del there[key]
        if len(there) == 1:
            (self._groups[group],) = there.values()
        return False

    def values(self, group: Group) -> Collection[Value]:
        """Return the values of a group, as they are now."""
        there = self._groups.get(group)
        if there is None:
            return ()
        return list(there.values()) if isinstance(there, dict) else (there,)
