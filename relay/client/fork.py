"""Clients in a forked child: they end, and the parent's connections are left alone.

The child has copies of the keys and of the socket. It must not send (the same nonces would be used
twice), not read (the bytes belong to the parent), and send no close record. So each client ends
there with ClientForked, and its socket's descriptor is redirected to /dev/null before any code can
run: whatever still refers to it, an event loop or a garbage collector, cannot harm the parent. In
particular, removing the descriptor from a shared epoll set would otherwise remove it from the
parent's.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, Protocol
from weakref import WeakSet

from relay.client.errors import ClientForked


class Forkable(Protocol):
    """A client that is notified of a fork."""

    def _forked(self) -> None:
        """This is a copy in a child."""


_clients: Final[WeakSet[Forkable]] = WeakSet()


def register(client: Forkable) -> None:
    """Notify this client if it is in a forked child."""
    _clients.add(client)


def forked_error() -> ClientForked:
    """Return the error with which a client ends in a child."""
    return ClientForked(
        "this client was made before os.fork() and belongs to the parent process; "
        "make a new one in the child"
    )


def disconnect(opened: object) -> None:
    """Redirect a copied socket's descriptor to /dev/null, without affecting the parent's."""
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
