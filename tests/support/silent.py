"""An address that swallows SYNs, as a host behind a firewall does."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

ATTEMPTS = 16


class SilentHost:
    """A listening socket whose queue is full: the kernel drops every further SYN."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.socket()
        self._fillers: list[socket.socket] = []
        self._thread: threading.Thread | None = None
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(0)
        self.host, self.port = self._listener.getsockname()

    def __enter__(self) -> Self:
        for _ in range(ATTEMPTS):
            filler = socket.socket()
            filler.setblocking(False)
            self._fillers.append(filler)
            filler.connect_ex((self.host, self.port))
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        for opened in (*self._fillers, self._listener):
            opened.close()

    def end_silence(self, begins: bytes) -> None:
        """Accept from now on, and send these bytes to whoever connects.

        The kernel of a client whose SYN was dropped sends it again after a second or more.
        """
        self._thread = threading.Thread(target=self._accept, args=(begins,), daemon=True)
        self._thread.start()

    def _accept(self, begins: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                opened, _ = self._listener.accept()
                self._fillers.append(opened)
                opened.sendall(begins)
