"""How a process of a server reports its start, as its program sees it."""

from __future__ import annotations

from typing import Protocol


class Boot(Protocol):
    """The reports of one process to its supervisor: see ``boot_report``.

    Why it cannot start, a program reports by raising RelayError or OSError.
    """

    def prepared(self) -> None:
        """Report that this process waits at its gate: it has prepared all that it can."""

    def ready(self, text: str = "") -> None:
        """Report that this process serves."""
