"""The process title of a worker, for ps and htop."""

from __future__ import annotations

from setproctitle import setproctitle


def set_title(index: int, connections: int) -> None:
    """Show the worker's index and number of connections."""
    setproctitle(f"relay: worker {index} ({connections} conns)")
