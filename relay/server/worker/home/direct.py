"""The two parts of a home that handle direct messages: before and after acceptance."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.server.worker.home.copies import Copies
    from relay.server.worker.home.permissions import Permissions


class Direct(NamedTuple):
    """Permissions and copies of direct messages."""

    permissions: Permissions
    """Holds messages while the recipient's home is asked."""
    copies: Copies
    """Delivers accepted ones to the recipient's log."""
