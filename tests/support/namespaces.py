"""Whether tests may create mount and process namespaces here."""

from __future__ import annotations

import subprocess

import pytest


def namespaces() -> bool:
    """Whether this machine lets us make them: containers often do not, nor do users but root."""
    probe = "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"
    command = ["unshare", "--fork", "--pid", "--mount-proc", "-m", "sh", "-c", probe]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


NAMESPACES = pytest.mark.skipif(not namespaces(), reason="no namespaces can be made here")
