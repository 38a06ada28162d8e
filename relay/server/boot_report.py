"""What a child of the supervisor reports on a pipe: that it serves, or why it cannot.

Until then every failure that the program or the system names is a reason, whoever raised it: it is
one line for the operator. Anything else is a bug.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final

from relay.errors import RelayError
from relay.server.system.resource_limits import refusal

BYTES_MAX: Final = 4096
"""For a report: what a pipe takes at once (PIPE_BUF)."""
BOOT_FAILED: Final = 3
"""Exit code of a process that has reported why it cannot serve."""


class BootReport:
    r"""The writing end of the pipe.

    The lines: ``R TEXT\n`` when the process serves; ``E REASON\n`` when it cannot. A process with a
    gate first writes ``P\n``, when it has prepared all that it can before the gate.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.over = False
        """True once it has been reported that the process serves, or why it cannot."""

    def prepared(self) -> None:
        """Report that this process waits at its gate."""
        self._write("P")

    def ready(self, text: str = "") -> None:
        """Report that this process serves."""
        self.over = True
        self._write(f"R {text}".rstrip())

    def failed(self, reason: str) -> None:
        """Report why this process cannot serve."""
        self.over = True
        # If the supervisor is gone, which is handled elsewhere, the failure is still reported.
        if not self._write(f"E {reason}"):
            sys.stderr.write(f"E {reason}\n")

    def _write(self, line: str) -> bool:
        """Write a line. A path in it may contain bytes that are not valid text: they are escaped.

        False: nobody reads it.
        """
        data = line.replace("\n", " ").encode(errors="backslashreplace")
        try:
            os.write(self.fd, data[: BYTES_MAX - 1] + b"\n")
        except OSError:
            return False
        return True


def booted(boot: BootReport, program: Callable[[], int]) -> int:
    """Run the program of a process; return its exit code.

    Raises what it raises, except for a failure before it serves, which is reported.
    """
    try:
        return program()
    except (RelayError, OSError, RuntimeError) as error:
        why = str(error) if isinstance(error, RelayError) else refusal(error)
        if boot.over or not why:
            raise
        boot.failed(why)
        return BOOT_FAILED
