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

from relay.client.errors import ClientForked


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
