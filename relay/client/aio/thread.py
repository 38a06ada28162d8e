"""Runs blocking calls beside the event loop, in a thread that nothing waits for.

The loop's own executor is not suitable: ``asyncio.run`` waits for its threads, and some system
calls, such as the resolver's, cannot be interrupted. A Ctrl-C would take as long as they do.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(call: Callable[[], Result]) -> Result:
    """Run ``call`` in a daemon thread; return its result, or raise its error. May be cancelled."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()

    def finish(result: Result | None, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller gets it
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="relay client", daemon=True).start()
    return await outcome
