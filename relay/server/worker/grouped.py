"""A multimap optimised for groups with one member, for which no dict is created.

A dict takes about 200 bytes, and a worker keeps one group per connection in several places.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar, cast, final

Group = TypeVar("Group")
Key = TypeVar("Key")
Value = TypeVar("Value")


@final
class Grouped(Generic[Group, Key, Value]):
    """Values by group and by their key within the group, in insertion order."""

    __slots__ = ("_groups", "_key_of")

    def __init__(self, key_of: Callable[[Value], Key]) -> None:
        """Create an empty multimap.

        Args:
            key_of: returns the key of a value, always the same one. A value must not be a dict.
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
        """Add a value. It replaces a value with the same key in the same group."""
        there = self._groups.get(group)
        if there is None:
            self._groups[group] = value
        elif isinstance(there, dict):
            there[self._key_of(value)] = value
        else:
            key, other = self._key_of(value), self._key_of(there)
            self._groups[group] = value if key == other else {other: there, key: value}

    def get(self, group: Group, key: Key) -> Value | None:
        """Return a value, or None if it is absent."""
        there = self._groups.get(group)
        if there is None:
            return None
        if isinstance(there, dict):
            return cast("dict[Key, Value]", there).get(key)
        return there if self._key_of(there) == key else None

    def remove(self, group: Group, key: Key) -> bool:
        """Remove a value that is present. Return True if the group is now empty."""
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
        """Return the current values of a group."""
        there = self._groups.get(group)
        if there is None:
            return ()
        return list(there.values()) if isinstance(there, dict) else (there,)
