"""Searches files for bytes: what was erased must not be found."""

from __future__ import annotations

import re
from pathlib import Path


def leftovers(directory: Path, pattern: bytes) -> dict[str, set[bytes]]:
    """Return by file what a pattern finds in the files below a directory."""
    found = {}
    for file in sorted(directory.rglob("*")):
        if file.is_file() and (here := set(re.findall(pattern, file.read_bytes()))):
            found[file.name] = here
    return found
