"""Temporary device keys, for programs that are not tests."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def throwaway_keys() -> Iterator[None]:
    """Let clients in this block, and in processes that are started in it, create keys and claim
    names.

    As ``conftest`` does for tests: nothing of the user's is read or changed.
    """
    with tempfile.TemporaryDirectory(prefix="relay-keys-") as directory:
        before = dict(os.environ)
        os.environ |= {"RELAY_KEYS": directory, "RELAY_REGISTER": "1"}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
