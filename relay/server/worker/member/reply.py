"""What a request waits for: another worker's answer, or its turn among this worker's readers.

A request that must wait is a coroutine that awaits one ``Reply`` after another; the
``RequestRunner`` of its connection runs it. There is no task and no future: a reply that is already
resolved costs no iteration of the loop, and a request ends with its connection by closing the
coroutine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
ANSWER_S_MAX: Final = 30
"""Maximum number of seconds to wait for another worker, whatever its problem: longer than it takes
to detect and replace a worker that hangs. Requests to a home that is known to be away are answered
sooner (``routes.AWAY_S_MAX``)."""


class Expiry:
    """Recognises by its number what has waited for more than ``ANSWER_S_MAX``."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[int] = deque()
        """The number that was the last one, in each of the last seconds."""

    def tick(self, last: int) -> int:
        """Return up to which number all are late. Must be called once per second.

        Args:
            last: the number given out last; they grow from 1.
        """
        self._last.append(last)
        return self._last.popleft() if len(self._last) > ANSWER_S_MAX else 0


class Reply(Generic[T]):
    """A value that becomes available later, awaited by one request."""

    __slots__ = ("_done", "_value", "abandoned", "on_resolved")

    _value: T

    def __init__(self) -> None:
        self._done = False
        self.on_resolved: Callable[[], None] | None = None
        """Continues the waiting request; set by whatever runs it."""
        self.abandoned = False
        """True when the waiting request has ended: the value is no longer needed."""

    def resolve(self, value: T) -> None:
        """Set the value. The waiting request continues at once; a second value is ignored."""
        if self._done or self.abandoned:
            return
        self._done = True
        self._value = value
        resolved, self.on_resolved = self.on_resolved, None
        if resolved is not None:
            resolved()

    def then(self, called: Callable[[T], None]) -> None:
        """Call a function with the value, for a caller that does not await it."""
        assert not self._done, "no answer arrives inside the call that asks"
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


class Requester(Protocol):
    """The session that owns the requests."""

    def request_ended(self) -> None:
        """A request that had to wait has ended."""

    def failed(self, error: Exception) -> None:
        """The request raised this exception."""

    def unanswered(self, number: int) -> None:
        """The request has waited too long and ends next. ``number``: its number, or 0."""


class RequestRunner:
    """Runs the one waiting request of a connection; later operations wait, too."""

    __slots__ = ("_number", "_requester", "_seconds", "_waiting")

    def __init__(self, requester: Requester) -> None:
        """Create without a request.

        Args:
            requester: is notified when requests that had to wait end.
        """
        self._requester = requester
        self._waiting: Request | None = None
        self._number = 0
        """The client's number of the request; 0: it has none."""
        self._seconds = 0
        """How long it has waited."""

    def start(self, request: Request, number: int) -> bool:
        """Run a request until it ends or waits. Returns True if it waits; raises what it raises."""
        assert self._waiting is None, "a request begins when the one before has ended"
        self._number = number
        self._seconds = 0
        return self._advance(request)

    def look(self) -> None:
        """End a request that has waited too long. Called about once a second.

        It applies whatever the request waits for, so every operation is answered within a bound.
        """
        self._seconds += 1
        if self._waiting is not None and self._seconds > ANSWER_S_MAX:
            self.cancel()
            self._requester.unanswered(self._number)
            self._requester.request_ended()

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
            self._requester.failed(error)
        if not waits:
            self._requester.request_ended()
