"""A worker's socket for the control process, in the runtime directory; replaced if removed.

A worker serves its clients without it, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from relay.local_sockets import NamedListener, remove_earlier
from relay.reopening import Reopening
from relay.server.context import worker_socket
from relay.server.line_server import BACKLOG, QUESTION_BYTES_MAX, Handler, LineServer

if TYPE_CHECKING:
    from relay.server.context import WorkerContext

log = logging.getLogger("relay.worker")


class AdminSocket:
    """The socket on which the control process queries this worker."""

    def __init__(self, context: WorkerContext, handlers: Mapping[str, Handler]) -> None:
        self._context = context
        path = worker_socket(context.runtime, context.index, context.generation)
        self._listener = NamedListener(path, BACKLOG)
        self._lines = LineServer(handlers)
        self._server: asyncio.Server | None = None
        """None until it is open."""
        self._reopening = Reopening(self._listener, self._open_if_possible)

    async def open(self) -> None:
        """Begin to answer, now or as soon as the name can be created."""
        context = self._context
        remove_earlier(self._listener.path.parent, context.index, context.first_generation)
        await self._open_if_possible()

    async def _open(self) -> None:
        sock = self._listener.open()
        before, self._server = (
            self._server,
            await asyncio.start_unix_server(self._lines.serve, sock=sock, limit=QUESTION_BYTES_MAX),
        )
        if before is not None:
            before.close()

    def check(self) -> None:
        """Open it if its name is missing. Called about once a second."""
        self._reopening.check()

    async def _open_if_possible(self) -> None:
        try:
            await self._open()
        except OSError as error:
            log.warning("admin_socket_failed", extra={"reason": str(error)})

    def close(self) -> None:
        """Stop, and remove the name."""
        if self._server is not None:
            self._server.close()
        self._listener.remove()
