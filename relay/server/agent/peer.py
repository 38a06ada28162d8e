"""Who is at the other end of a Unix-domain socket."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final, Protocol

_UCRED: Final = struct.Struct("3i")
_SO_PEERCRED: Final = getattr(socket, "SO_PEERCRED", 17)


class SocketLike(Protocol):
    """A socket, or an event loop's stand-in for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As ``socket.getsockopt``."""


def check_peer(sock: SocketLike) -> bool:
    """Tell whether the peer's process ran under our own uid when it connected.

    The directory's mode keeps others out already; this holds when somebody opened it.
    """
    data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(data)
    return bool(uid == os.geteuid())
