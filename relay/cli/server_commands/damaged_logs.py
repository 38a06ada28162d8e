"""What commands print about accounts, invitations and rooms that are damaged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relay.store.file.integrity import DamagedLog

HELP_FOR_LOGS: Final = (
    "accounts, invitations or rooms are damaged: restore a backup, or run the newer Relay that "
    "wrote them (docs/operations.md, One account or room that cannot be read)"
)


def reasons_by_log(damaged: Iterable[DamagedLog]) -> dict[str, str]:
    """Return what is wrong with each log, for a JSON document."""
    found: dict[str, str] = {}
    for one in damaged:
        found[one.log] = f"{found[one.log]}; {one.reason}" if one.log in found else one.reason
    return found
