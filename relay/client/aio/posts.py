"""Futures for the outcomes of sends and posts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Self

from relay.client.events import Stored


class Sending(asyncio.Future[Stored]):
    """The outcome of a ``send``, to come. If nobody waits any more, ``flush`` reports a failure."""


class Post(Sending):
    """The outcome of a ``post``, to come: a future. ``flush`` reports a failure.

    ``await`` it any number of times. A task that is cancelled meanwhile does not cancel it: the
    message is on its way, and its outcome can still be asked for.
    """

    retrieved = False
    """True once its program waits for the outcome, or has looked at it."""

    def __await__(self) -> Generator[Any, None, Stored]:
        self.retrieved = True
        if self.done():
            return self.result()
        return (yield from asyncio.shield(self).__await__())

    __iter__ = __await__

    def add_done_callback(
        self, fn: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """Call ``fn`` with this once the outcome is known, as futures do."""
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
