"""A secret that outlives the process that wrote it: in memory, in a file without a name.

The supervisor keeps the descriptor, and passes it to the next version in an upgrade. The process
that owns the secret inherits it; all others close it. Incomplete content counts as empty, so no
reader waits for a writer.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from typing import Final

from relay.server.system.anonymous_file import anonymous_file

BYTES_MAX: Final = 4096
_DIGEST_BYTES: Final = sha256().digest_size


class InheritedSecret:
    """Made before the first fork. Where no such file can be made, nothing is kept."""

    def __init__(self, name: str, fd: int = -1) -> None:
        """Begin empty, or with the file of the server before.

        Args:
            name: for those who look at the descriptors of a process.
            fd: of the server before; -1: of none.
        """
        if fd < 0:
            with contextlib.suppress(OSError):
                fd = anonymous_file(name, secret=True)
        self.fd = fd
        """-1: nothing is kept, or this process has let go of it."""

    def read(self) -> bytes:
        """Return what is kept; empty: nothing, or it was just being written."""
        if self.fd < 0:
            return b""
        data = os.pread(self.fd, _DIGEST_BYTES + BYTES_MAX, 0)
        digest, secret = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return secret if digest == sha256(secret).digest() else b""

    def write(self, secret: bytes) -> None:
        """Keep a secret of at most ``BYTES_MAX`` instead of what was kept; if that is impossible,
        nothing.
        """
        assert len(secret) <= BYTES_MAX
        if self.fd < 0:
            return
        data = sha256(secret).digest() + secret
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, len(data))
            os.pwrite(self.fd, data, 0)

    def close(self) -> None:
        """Let go of it, in a process that has nothing to do with it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
