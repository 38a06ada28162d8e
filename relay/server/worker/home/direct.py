"""A home's two parts for direct messages: before they are accepted, and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.server.worker.home.copies import Copies
    from relay.server.worker.home.permissions import Permissions


class Direct(NamedTuple):
    """See the module's docstring."""

    permissions: Permissions
    """Holds them while the recipient's home is asked."""
    copies: Copies
    """Delivers accepted ones to the recipient's log."""
