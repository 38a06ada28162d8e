"""The control process's requests to the supervisor: one at a time, over a socket pair.

The socket pair is older than this process and outlives it, so an answer may belong to a request of
the previous process: each carries its request's number.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import time
from typing import Any, Final

from relay.server.context import SUPERVISOR_MESSAGE_BYTES_MAX
from relay.server.line_server import NotAnswered

ANSWER_S: Final = 10.0


class SupervisorLine:
    """Sends requests to the supervisor."""

    def __init__(self, sock: socket.socket) -> None:
        """Take the control process's end."""
        sock.setblocking(False)
        self._sock = sock
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Ask, and return the answer. Raises NotAnswered: the supervisor refuses, or hangs."""
        loop = asyncio.get_running_loop()
        number = secrets.randbits(48)
        async with self._one_at_a_time:
            # A supervisor that runs again after a suspension must not do what was given up.
            before_s = time.monotonic() + ANSWER_S
            question = {"number": number, "before_s": before_s, "do": do, **arguments}
            try:
                async with asyncio.timeout(ANSWER_S):
                    await loop.sock_sendall(self._sock, json.dumps(question).encode())
                    while True:
                        data = await loop.sock_recv(self._sock, SUPERVISOR_MESSAGE_BYTES_MAX)
                        answer = json.loads(data)
                        if answer["number"] == number:
                            break
            except (OSError, TimeoutError, ValueError):
                raise NotAnswered(
                    "the supervisor does not answer: it is not known whether it was done; the"
                    " server's log shows it"
                ) from None
        if "error" in answer:
            raise NotAnswered(answer["error"])
        found: dict[str, Any] = answer["ok"]
        return found
