"""Future-like objects for the outcomes of calls and posts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, cast

from relay.client import arguments
from relay.client.base import no_answer
from relay.client.errors import ClientError
from relay.client.events import Stored

Result = TypeVar("Result")


class Pump(Protocol):
    """What waits for an answer: a client's pump."""

    def wait(self, met: Callable[[], bool], timeout_s: float | None) -> object:
        """Wait until this is true, or for a number of seconds; None: no limit."""


class Pending(Generic[Result]):
    """The answer to a call, which may not have arrived yet."""

    __slots__ = ("_ended", "_error", "_pump", "_result", "reported")

    def __init__(self, pump: Pump, *, reported: bool = False) -> None:
        self._pump = pump
        self._ended = False
        self._result: Result | None = None
        self._error: ClientError | None = None
        self.reported = reported
        """True: ``flush`` reports a failure."""

    def end(self, result: Result | ClientError) -> None:
        """The answer has arrived."""
        if isinstance(result, ClientError):
            self._error = result
        else:
            self._result = result
        self._ended = True

    def done(self) -> bool:
        """Return whether the outcome is known."""
        return self._ended

    def result(self, timeout: float | None = None) -> Result:
        """Return the outcome.

        Args:
            timeout: seconds to wait for it; None: no limit.

        Raises:
            TimedOut: it is not known in time. Calling again is possible.
            ClientError: the call has failed.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return cast(Result, self._result)

    def exception(self, timeout: float | None = None) -> ClientError | None:
        """Return the error of a call that has failed, or None. Waits and raises as ``result``."""
        self._pump.wait(self.done, arguments.seconds_or_none("timeout", timeout))
        if not self._ended:
            raise no_answer(timeout)
        return self._error


class BlockingPost(Pending[Stored]):
    """The outcome of a ``post``. ``flush`` reports a failure."""

    __slots__ = ("retrieved",)

    def __init__(self, pump: Pump, *, reported: bool = False) -> None:
        super().__init__(pump, reported=reported)
        self.retrieved = False
        """True once its program has retrieved the outcome."""

    def exception(self, timeout: float | None = None) -> ClientError | None:
        """Return the error of a call that has failed, or None. Waits and raises as ``result``."""
        error = super().exception(timeout)
        self.retrieved = True
        return error
