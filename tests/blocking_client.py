"""Generates the part of the blocking client that is the asyncio client without ``async``.

Both clients have the same calls. Where they also do the same, the asyncio client is the source::

    python -m tests.blocking_client

Calls that wait differently (``calls``, ``client``, ``pump``) are written by hand.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import unasync

SOURCE: Final = Path(__file__).resolve().parents[1] / "relay" / "client" / "aio"
MODULES: Final = ("accounts.py", "direct.py", "own.py", "room.py", "rooms.py")
NAMES: Final = {
    "aio": "blocking",
    "aclosing": "closing",
    "Post": "BlockingPost",
    "Room": "BlockingRoom",
} | {f"Async{name}": f"Blocking{name}" for name in ("Accounts", "Calls", "Direct", "Own", "Rooms")}
HEAD: Final = "# Generated from relay/client/aio by `python -m tests.blocking_client`: edit that.\n"


def generate(directory: Path) -> None:
    """Write the modules into ``directory``, as they are in ``relay/client/blocking``."""
    rule = unasync.Rule(f"{SOURCE}/", f"{directory}/", NAMES)
    unasync.unasync_files([str(SOURCE / name) for name in MODULES], [rule])
    written = [directory / name for name in MODULES]
    for path in written:
        path.write_text(HEAD + path.read_text())
    config = str(SOURCE.parents[2] / "pyproject.toml")
    for command in (["check", "--select=I", "--fix"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", command[0], "--quiet", "--config", config]
        subprocess.run([*ruff, *command[1:], *written], check=True)


if __name__ == "__main__":
    generate(SOURCE.with_name("blocking"))
