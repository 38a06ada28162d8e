"""Requests between processes of one machine: one JSON object per line, over a Unix-domain socket.

``relay ctl`` asks the control process in this way, and the control process the workers. A
connection carries one request and its answer: ``{"do": NAME, ...}``, then ``{"ok": ...}`` or
``{"error": TEXT}``. Only root and the server's own user are answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from relay.errors import RelayError
from relay.local_sockets import credentials

QUESTION_BYTES_MAX: Final = 4096
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
QUESTION_S: Final = 5.0
"""Timeout for receiving a request, and for sending its answer."""
CONNECTIONS_MAX: Final = 16
BACKLOG: Final = 16
NO_ANSWER: Final = "it does not answer"
log = logging.getLogger("relay.control")

Question = Mapping[str, Any]
Handler = Callable[[Question], Awaitable[Any]]


class NotAnswered(RelayError):
    """The request failed: the message gives the reason, for the requester."""


class NotReached(NotAnswered):
    """Nobody listens at the socket: the request was not sent."""


class LineServer:
    """Answers by a table of handlers, which may raise NotAnswered."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end. Raises nothing because of the peer."""
        uid = credentials(writer.get_extra_info("socket")).uid
        if uid not in (0, os.geteuid()):
            self._refuse(writer, "only root and the relay's user may ask")
            return
        if self._open >= CONNECTIONS_MAX:
            self._refuse(writer, f"{self._open} other requests are being answered: try again")
            return
        self._open += 1
        try:
            async with asyncio.timeout(QUESTION_S):
                line = await reader.readline()
            answer = await self._answer(line)
            async with asyncio.timeout(QUESTION_S):
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):  # ValueError: the line is too long
            pass
        finally:
            self._open -= 1
            writer.close()

    def _refuse(self, writer: asyncio.StreamWriter, reason: str) -> None:
        """Send the reason without waiting: a new connection's buffer has room for a line."""
        writer.write(json.dumps({"error": reason}).encode() + b"\n")
        writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "not a line of JSON"}
        handler = None
        if isinstance(question, dict) and isinstance(question.get("do"), str):
            handler = self._handlers.get(question["do"])
        if handler is None:
            return {"error": f"possible requests: {', '.join(self._handlers)}"}
        try:
            return {"ok": await handler(question)}
        except NotAnswered as error:
            return {"error": str(error)}
        except Exception:
            log.exception("question_failed", extra={"do": question["do"]})
            return {"error": "an internal error; the server's log has it"}


async def ask(path: Path, question: Question, timeout_s: float) -> Any:  # noqa: ANN401
    """Ask a process, and return its answer.

    Raises:
        NotAnswered: it refuses, or does not answer in time. NotReached: there is no such process.
    """
    try:
        async with asyncio.timeout(timeout_s):
            try:
                reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotReached(NO_ANSWER) from None
            try:
                writer.write(json.dumps(question).encode() + b"\n")
                answer = json.loads(await reader.readline())
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        raise NotAnswered(NO_ANSWER) from None
    if "error" in answer:
        raise NotAnswered(answer["error"])
    return answer["ok"]


def number_of(question: Question, name: str, default: int, most: int) -> int:
    """Return an integer of a request, from 1 to ``most``. Raises NotAnswered."""
    value = question.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise NotAnswered(f"{name}: expected a whole number from 1 to {most}")
    return value


def text_of(question: Question, name: str) -> str:
    """Return a string of a request; empty: it was not given. Raises NotAnswered."""
    value = question.get(name) or ""
    if not isinstance(value, str):
        raise NotAnswered(f"{name}: expected text")
    return value
