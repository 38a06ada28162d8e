"""The command that starts the version of this program that is now on the disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

NOT_INHERITED: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID")
"""Variables about this process; what they refer to is handed over."""


def own_command() -> list[str]:
    """Return the program and its arguments.

    A script is run as such: its first line names the interpreter of its environment, which changes
    when a link to the environment is changed.
    """
    script = Path(sys.argv[0])
    if script.name == "relay" and os.access(script, os.X_OK):
        return [str(script), *sys.argv[1:]]
    return [sys.executable, *sys.orig_argv[1:]]


def next_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that this process was started with, for the next one."""
    return {name: value for name, value in environ.items() if name not in NOT_INHERITED}
