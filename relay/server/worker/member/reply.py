"""What a request waits for: another worker's answer, or its turn among this one's readers.

A request that must wait is a coroutine that awaits one ``Reply`` after another; the
``RequestRunner`` of its connection runs it. There is no task and no future: a reply that is there
already costs no iteration of the loop, and closing the coroutine is how a request ends with its
connection.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

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
        resolved, self.on_resolved = self.on_resolved, None
        if resolved is not None:
            resolved()

    def then(self, called: Callable[[T], None]) -> None:
        """Have something called with the value, by whoever does not await it."""
        assert not self._done, "nobody answers in the middle of whoever asks"
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


class Asker(Protocol):
    """Whose requests they are: a session."""

    def request_ended(self) -> None:
        """A request that had to wait has ended."""

    def failed(self, error: Exception) -> None:
        """It has raised this then."""


class RequestRunner:
    """The one request of a connection that waits; operations after it wait, too."""

    __slots__ = ("_asker", "_waiting")

    def __init__(self, asker: Asker) -> None:
        """Begin with none.

        Args:
            asker: is told of the ends of requests that had to wait.
        """
        self._asker = asker
        self._waiting: Request | None = None

    def start(self, request: Request) -> bool:
        """Run a request until it ends or waits. Returns True when it waits; raises what it does."""
        assert self._waiting is None, "a request begins when the one before has ended"
        return self._advance(request)

    def cancel(self) -> None:
        """The connection has ended, and the request with it."""
        request, self._waiting = self._waiting, None
        if request is not None:
            request.close()

    def _advance(self, request: Request) -> bool:
        try:
            reply = request.send(None)
        except StopIteration:
            return False
        self._waiting = request
        reply.on_resolved = self._resumed
        return True

    def _resumed(self) -> None:
        request, self._waiting = self._waiting, None
        assert request is not None, "a reply wakes the one request that waits for it"
        waits = False
        try:
            waits = self._advance(request)
        except Exception as error:  # noqa: BLE001 - the session's boundary takes it
            self._asker.failed(error)
        if not waits:
            self._asker.request_ended()
