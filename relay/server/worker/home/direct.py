"""What a home has for direct messages: before they are accepted, and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from relay.server.worker.home.copies import Copies
    from relay.server.worker.home.permissions import Permissions


class Direct(NamedTuple):
    """See the module's docstring."""

    permissions: Permissions
    """Those whose recipient's home is asked."""
    copies: Copies
    """Those that are accepted, and not in the recipient's log yet."""
