"""The part of the children's programs that is imported once, before they are forked.

A forked child has what its parent has imported, and shares the memory of it. The first processes
are started before that: the supervisor imports while they boot and others wait for them.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable

from relay.loading import no_collections
from relay.server.supervisor.roles import Role


class SharedCode:
    """Loads what the processes of each role can share, once."""

    def __init__(self, roles: Iterable[Role]) -> None:
        """Create; nothing is loaded yet."""
        self._to_load = [role.load for role in roles]

    def look(self) -> None:
        """Load it, at the first call."""
        if not self._to_load:
            return
        for load in self._to_load:
            # Each child imports what is missing. Where that fails, it reports why.
            with contextlib.suppress(Exception), no_collections():
                load()
        self._to_load = []
        # As at the start: no collector writes to what the children share.
        gc.freeze()
