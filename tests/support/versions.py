"""Versions of the package, installed side by side, for upgrades."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import relay as package
from relay.bus.format import BUS_FORMAT

OTHER_FORMAT = ("bus/format.py", f"BUS_FORMAT: Final = {BUS_FORMAT}", "BUS_FORMAT: Final = 99")
"""Then workers of both cannot run side by side: the upgrade is one switch."""

NEVER_STARTS = (
    "server/worker/process/main.py", "import uvloop\n", "import time; time.sleep(600)\n",
)  # fmt: skip
"""Then no worker becomes ready."""


class Versions:
    """Of the package, in a directory; ``current`` leads to the one that a start takes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.current = directory / "current"
        self.install("present")

    def install(self, name: str, *changes: tuple[str, str, str]) -> None:
        """Copy the package, with changes of (file, old text, new text); the link leads there.

        What is not changed is the same file as in the checkout, by a hard link: a copy of more than
        a thousand files takes half a second of the processor. A change makes a new file.
        """
        target = self._directory / name
        if not target.exists():
            # With its bytecode, which holds for sources of the same time; but not what is being
            # written, which has a number at its end.
            ignored = shutil.ignore_patterns("*.pyc.*")
            shutil.copytree(
                Path(package.__file__).parent,
                target / "relay",
                ignore=ignored,
                copy_function=_link_or_copy,
            )
        for file, old, new in changes:
            path = target / "relay" / file
            text = path.read_text()
            assert old in text
            path.unlink()  # the checkout's file stays as it is
            path.write_text(text.replace(old, new))
        link = self._directory / "link"
        link.symlink_to(name)
        link.rename(self.current)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or one without hard links
        shutil.copy2(source, target)
