"""Event loops for tests."""

from __future__ import annotations

import warnings

import uvloop


class ClosingLoop(uvloop.Loop):
    """A uvloop that can be closed whatever a test that failed has left open in it.

    It warns of each such handle before it closes it. If warnings are errors, as in tests, this one
    is raised in a callback of libuv, the handle stays open, and ``close`` waits without end, and
    without running a signal handler. So the warnings are issued after the end of ``close``.
    """

    def close(self) -> None:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            super().close()
        for warning in found:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
