"""Identifies one boot of the kernel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
log = logging.getLogger("relay.supervisor")


def boot_id() -> str:
    """Return an id that changes with each boot of the kernel; empty where it is hidden."""
    try:
        if found := _BOOT_ID.read_text(encoding="ascii").strip():
            return found
        reason = "it is empty"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII"
    log.warning("boot_id_unknown", extra={"path": str(_BOOT_ID), "reason": reason})
    return ""
