"""Futures for the outcomes of sends and posts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Self

from relay.client.events import Stored


class Sending(asyncio.Future[Stored]):
    """A future for the outcome of a ``send``.

    If nobody waits for it, ``flush`` reports a failure.
    """


class Post(Sending):
    """A future for the outcome of a ``post``. ``flush`` reports a failure.

    ``await`` it any number of times. Cancelling a task that awaits it does not cancel it: the
    message is on its way, and its outcome can still be requested.
    """

    retrieved = False
    """True once the program waits for the outcome, or has retrieved it."""

    def __await__(self) -> Generator[Any, None, Stored]:
        self.retrieved = True
        if self.done():
            return self.result()
        return (yield from asyncio.shield(self).__await__())

    __iter__ = __await__

    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """Call ``fn`` with this object once the outcome is known, as futures do."""
        self.retrieved = True
        super().add_done_callback(fn, context=context)

    def result(self) -> Stored:
        """Return the outcome, as futures do."""
        self.retrieved = self.retrieved or self.done()
        return super().result()

    def exception(self) -> BaseException | None:
        """Return the error or None, as futures do."""
        self.retrieved = self.retrieved or self.done()
        return super().exception()
