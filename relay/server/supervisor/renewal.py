"""Replaces processes when what they were started with is outdated.

This happens after a reload, for a key, and when the name of a socket that they cannot recreate was
removed from the disk, as programs that clean temporary directories do.
"""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Sequence
from typing import Final

from relay.server.supervisor.roles import Role
from relay.server.supervisor.spare import SpareKeeper
from relay.server.supervisor.state import Phase, State

LOOK_S: Final = 2.0
log = logging.getLogger("relay.supervisor")


class Renewal:
    """Detects outdated processes and has them replaced."""

    def __init__(self, roles: Sequence[Role], state: State, spares: SpareKeeper) -> None:
        """Create; nothing is checked before the server serves."""
        self._roles = roles
        self._state = state
        self._spares = spares
        self.wake_at_s = 0.0 if any(role.renewed is not None for role in roles) else math.inf
        """When to check if nothing happens before."""

    def reloaded(self, now: float) -> None:
        """The settings were read again."""
        for role in self._roles:
            if role.outdated():
                self._replace(role, now)

    def look(self, now: float) -> None:
        """Check whether anything must be recreated, unless that was done recently."""
        if now < self.wake_at_s:
            return
        self.wake_at_s = now + LOOK_S
        state = self._state
        if not state.serving or state.stopping or state.lent or state.before:
            return
        for role in self._roles:
            if role.renewed is not None and role.renewed():
                self._replace(role, now)
            elif not role.owns_partitions:
                self._end_outdated(role, now)

    def _replace(self, role: Role, now: float) -> None:
        """Stop the processes of a role; new ones with current parameters replace them."""
        if role.owns_partitions:
            self._spares.end(now)
            count = self._state.replace_all()
            log.info("restarting", extra={"processes": count})
            return
        for child in self._state.of(role.name):
            child.replace = bool(child.pid)
        self._end_outdated(role, now)

    def _end_outdated(self, role: Role, now: float) -> None:
        """End the processes that are to be replaced; one that is starting is ended once it is
        ready.
        """
        for child in self._state.of(role.name):
            if not child.replace or child.sent:
                continue
            if child.phase is not Phase.READY:
                self.wake_at_s = now + LOOK_S
            else:
                child.sent = signal.SIGTERM
                log.info("child_replaced", extra=child.fields)
                os.kill(child.pid, signal.SIGTERM)
