"""What a request waits for: another worker's answer, or its turn among this one's readers.

A request that must wait is a coroutine that awaits one ``Reply`` after another; its session runs it
and is told when to go on. There is no task and no future: a reply that is there already costs no
iteration of the loop, and closing the coroutine is how a request ends with its connection.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


class Reply(Generic[T]):
    """A value that comes later, awaited by one request."""

    __slots__ = ("_done", "_value", "abandoned", "on_resolved")

    _value: T

    def __init__(self) -> None:
        self._done = False
        self.on_resolved: Callable[[], None] | None = None
        """Runs the request that waits; set by whoever runs it."""
        self.abandoned = False
        """True when the request that waited has ended: nobody wants the value any more."""

    def resolve(self, value: T) -> None:
        """Give the value. What waits for it goes on at once; a second value is ignored."""
        if self._done or self.abandoned:
            return
        self._done = True
        self._value = value
        if self.on_resolved is not None:
            self.on_resolved()

    def then(self, called: Callable[[T], None]) -> None:
        """Have something called with the value, by whoever does not await it."""
        if self._done:
            called(self._value)
        else:
            self.on_resolved = lambda: called(self._value)

    def __await__(self) -> Generator[Reply[T], None, T]:
        if not self._done:
            try:
                yield self
            except GeneratorExit:
                self.abandoned = True
                raise
        return self._value


Request: TypeAlias = Coroutine[Reply[Any], None, None]
"""An operation that may have to wait."""
