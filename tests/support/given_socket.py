"""A listening socket that another process holds and passes to a relay, as systemd's relay.socket
does.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import Final, Self

_TAKE: Final = """
import os, socket
with socket.socket(socket.AF_UNIX) as giver:
    giver.connect({giver!r})
    _, (fd,), _, _ = socket.recv_fds(giver, 1, 1)
if fd != 3:
    os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="relay.socket")
"""


class GivenSocket:
    """Passes it to every process that asks, until it is closed. A context manager."""

    def __init__(self, directory: Path) -> None:
        """Listen; ``directory`` is where it is asked for."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._giver = socket.socket(socket.AF_UNIX)
        path = str(directory / "giver")
        self._giver.bind(path)
        self._giver.listen()
        self.launcher = _TAKE.format(giver=path)
        """For ``Relay``: takes it."""
        self._thread = threading.Thread(target=self._give, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self._giver.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._giver.close()
        self._listener.close()

    def _give(self) -> None:
        with contextlib.suppress(OSError):  # the end
            while True:
                taker, _ = self._giver.accept()
                with taker:
                    socket.send_fds(taker, [b"x"], [self._listener.fileno()])
