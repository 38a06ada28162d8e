"""A worker's socket for the control process, in the runtime directory; replaced if removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from relay.local_sockets import NamedListener
from relay.server.context import worker_socket
from relay.server.line_server import BACKLOG, QUESTION_BYTES_MAX, Handler, LineServer

log = logging.getLogger("relay.worker")


class AdminSocket:
    """The socket on which the control process queries this worker."""

    def __init__(
        self, runtime: Path, index: int, generation: int, handlers: Mapping[str, Handler]
    ) -> None:
        self._listener = NamedListener(worker_socket(runtime, index, generation), BACKLOG)
        self._lines = LineServer(handlers)
        self._server: asyncio.Server | None = None
        """None until it is open."""
        self._opening: asyncio.Task[None] | None = None
        """The task that opens it again; None until that was first needed."""

    async def open(self) -> None:
        """Begin to answer. Raises OSError."""
        sock = self._listener.open()
        before, self._server = (
            self._server,
            await asyncio.start_unix_server(self._lines.serve, sock=sock, limit=QUESTION_BYTES_MAX),
        )
        if before is not None:
            before.close()

    def check(self) -> None:
        """Open it again if its name has been removed. Called about once a second."""
        if self._listener.missing and (self._opening is None or self._opening.done()):
            self._opening = asyncio.ensure_future(self._open_again())

    async def _open_again(self) -> None:
        try:
            await self.open()
        except OSError as error:
            log.warning("admin_socket_failed", extra={"reason": error.strerror})

    def close(self) -> None:
        """Stop, and remove the name."""
        if self._server is not None:
            self._server.close()
        self._listener.remove()
