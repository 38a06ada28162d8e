"""Reports an unexpected exception as one line, also before the commands can be loaded.

It needs nothing that may be missing: loading modules, or the standard streams, may be what failed.
"""

from __future__ import annotations

import os
from typing import Final

from relay import refused_calls

DEBUG_VARIABLE: Final = "RELAY_DEBUG"
MORE_MEMORY: Final = "raise the limit (ulimit -v, ulimit -d, or that of the service or container)"
_CHARS_MAX: Final = 500
"""Of the text of an exception: an error is one line."""
_STDERR: Final = 2


def debugging() -> bool:
    """True if RELAY_DEBUG requests tracebacks."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def described(error: BaseException) -> str:
    """Return an unexpected exception as one line; its text may come from anywhere."""
    text = MORE_MEMORY if isinstance(error, MemoryError) else str(error)
    text = refused_calls.reason(error) or f"{type(error).__name__}: {text}"
    what = " ".join(text.split())[:_CHARS_MAX]
    hint = "" if debugging() else f"; set {DEBUG_VARIABLE}=1 to see where"
    return what.removesuffix(":") + hint


def report_failed_start(error: BaseException) -> None:
    """Print what made it impossible to run any command, with a traceback before it if requested."""
    lines = [f"relay: cannot start: {described(error)}".encode("ascii", "backslashreplace")]
    if debugging():
        try:
            from traceback import format_exception

            lines.insert(0, "".join(format_exception(error)).encode("utf-8", "backslashreplace"))
        except Exception as second:  # noqa: BLE001  # the line is what matters
            lines.insert(0, f"no traceback: {second!r}".encode("ascii", "backslashreplace"))
    for line in lines:
        printable = bytes(each if each >= 0x20 or each == 0x0A else 0x3F for each in line)
        try:
            os.write(_STDERR, printable.rstrip(b"\n") + b"\n")
        except OSError:
            return
