"""The event loop of a command, whose unexpected failures are one line each, like all others."""

from __future__ import annotations

import asyncio
from typing import Any

from relay.cli.process.exits import report_internal
from relay.client.errors import ClientError


def report_unforeseen(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report the exception of a callback or a forgotten task as one line."""
    report_internal(context.get("exception") or ClientError(context["message"]))
