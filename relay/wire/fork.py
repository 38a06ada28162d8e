"""Connections do not survive ``os.fork()``: two processes with the same keys repeat nonces.

The process counts its forks: a connection records the count at its creation, and refuses to work
when it has changed. The hook is the only code in this package that touches the operating system.
"""

from __future__ import annotations

import os

generation = 0
"""Number of forks between this process and the one that first imported this."""


def _in_child() -> None:
    global generation
    generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
