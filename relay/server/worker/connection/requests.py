"""Running a request that may have to wait: a coroutine that awaits ``member.reply.Reply``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.server.worker.member.reply import Request


class RequestRunner:
    """The one request of a connection that waits; operations after it wait, too."""

    __slots__ = ("_on_ended", "_on_error", "_waiting")

    def __init__(self, on_ended: Callable[[], None], on_error: Callable[[Exception], None]) -> None:
        """Begin with none.

        Args:
            on_ended: called when a request that had to wait has ended.
            on_error: called with what it raised then.
        """
        self._on_ended = on_ended
        self._on_error = on_error
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
            self._on_error(error)
        if not waits:
            self._on_ended()
