"""The event loop of a command, whose failures are one line each, like all others."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from relay.cli.process.exits import report_internal
from relay.client.errors import ClientError


def runner() -> asyncio.Runner:
    """Return a runner with its event loop.

    Raises:
        OSError: the system allows none: too many open files, or a refused call.
    """
    made, hook = asyncio.Runner(), sys.unraisablehook
    try:
        made.get_loop()
    except OSError as error:
        # The frames hold an incomplete loop, whose destructor would print a traceback.
        sys.unraisablehook = lambda _: None
        raise error.with_traceback(None) from None
    finally:
        sys.unraisablehook = hook
    return made


def report_unforeseen(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report the exception of a callback or a forgotten task as one line."""
    report_internal(context.get("exception") or ClientError(context["message"]))
