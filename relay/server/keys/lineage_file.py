"""The fingerprints of a server's keys, one per line: the first is its id, the last the current key.

A server's id is permanent: device chains and the clients' files refer to it. The file is in the
data directory with the accounts that it belongs to. It is not secret, but whoever can write it can
change the server's identity, so access is checked as for the key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from relay.errors import StartError
from relay.server.keys.key_files import prepared_key_file, read_key_file

_FINGERPRINT: Final = re.compile(r"[a-z2-7]{51}[aq]")
_HEAD: Final = (
    "# The fingerprints of this server's keys. The first one is its id: it never changes.\n"
)


def read_lineage(path: Path) -> list[str]:
    """Return the fingerprints; none if there is no such file.

    Raises:
        StartError: it cannot be used.
    """
    data = read_key_file(path, "file")
    if data is None:
        return []
    lines = [line.strip() for line in data.decode("ascii", "replace").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found or not all(_FINGERPRINT.fullmatch(line) for line in found):
        raise StartError(
            f"{path}: contains something other than fingerprints; restore it from a backup"
        )
    return found


def write_lineage(
    path: Path, fingerprints: list[str], *, owner: os.stat_result | None = None
) -> None:
    """Write the file atomically and durably, replacing an earlier one: see ``prepared_lineage``."""
    with prepared_lineage(path, fingerprints, owner=owner) as publish:
        publish()


def prepared_lineage(
    path: Path, fingerprints: list[str], *, owner: os.stat_result | None = None
) -> AbstractContextManager[Callable[[], None]]:
    """Write the file beside its place, durably; yield what puts it there.

    Args:
        path: of the file.
        fingerprints: the first one is the id.
        owner: a file whose owner it gets; None: this process's user.

    Raises:
        StartError: it cannot be written.
    """
    lines = "".join(f"{one}\n" for one in fingerprints)
    return prepared_key_file(path, (_HEAD + lines).encode(), owner=owner, replace=True)
