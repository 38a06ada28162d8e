"""Clients in a forked child: they end, and the parent's connections are left alone.

The child has copies of the keys and of the socket. It may not send (the same nonces would be used
twice), not read (the bytes are the parent's), and send no close record. So each client ends there
with ClientForked, and its socket's descriptor is put on /dev/null before any code can run: whatever
still refers to it, an event loop or a garbage collector, can do the parent no harm. In particular
taking the descriptor out of a shared epoll set would otherwise take it out of the parent's.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, Protocol
from weakref import WeakSet

from relay.client.errors import ClientForked


class Forkable(Protocol):
    """A client that is told of a fork."""

    def _forked(self) -> None:
        """This is a copy in a child."""


_clients: Final[WeakSet[Forkable]] = WeakSet()


def register(client: Forkable) -> None:
    """Tell this client when it finds itself in a forked child."""
    _clients.add(client)


def forked_error() -> ClientForked:
    """Return what a client ends with in a child."""
    return ClientForked(
        "this client was made before os.fork() and belongs to the parent process; "
        "make a new one in the child"
    )


def disconnect(opened: object) -> None:
    """Put a copied socket's descriptor on /dev/null; the parent's connection notices nothing."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        descriptor = opened.fileno()  # type: ignore[attr-defined]
        if descriptor < 0:
            return
        nothing = os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            os.dup2(nothing, descriptor, inheritable=False)
        finally:
            os.close(nothing)


def _in_child() -> None:
    for client in list(_clients):
        client._forked()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
