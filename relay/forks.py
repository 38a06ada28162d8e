"""Objects that are notified in a forked child: what they hold belongs to the parent."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """An object that is notified of a fork."""

    def _forked(self) -> None:
        """This is a copy in a child."""


_objects: Final[WeakSet[Forkable]] = WeakSet()


def register(one: Forkable) -> None:
    """Notify this object if it is in a forked child."""
    _objects.add(one)


def _in_child() -> None:
    for one in list(_objects):
        one._forked()
    _objects.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
