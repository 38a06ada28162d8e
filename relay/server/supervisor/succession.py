"""From one version of the server to the next: what the supervisor does of it, on either side."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import StartError
from relay.server.supervisor import process
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.owners import Owners
from relay.server.supervisor.plan import State
from relay.server.supervisor.roles import Role, Step
from relay.server.supervisor.signals import SignalQueue, block_all
from relay.server.supervisor.spare import SpareKeeper
from relay.server.supervisor.upgrade import Upgrade

log = logging.getLogger("relay.supervisor")


class Succession:
    """Takes over from the server before, if there was one; gives way to the next, if one comes."""

    def __init__(
        self, config: SupervisorConfig, state: State, owners: Owners, spares: SpareKeeper
    ) -> None:
        self._config = config
        self._state = state
        self._owners = owners
        self._spares = spares
        self._takeover = config.takeover
        self._upgrade = Upgrade(config.program)
        self._generation = 0
        """The greatest of this server, as last told."""
        before = self._takeover and self._takeover.handover
        self.first_generation = before.generation if before else 0
        self.texts = {config.key_role: before.fingerprint} if before else {}
        """By role: what a first process must report as well."""

    @property
    def requests(self) -> Mapping[str, Callable[[Mapping[str, Any]], object]]:
        """What may be asked for, by name."""
        return {"upgrade": self._begin_as_asked, "upgrade-state": self._tell_state}

    @property
    def descriptors(self) -> list[int]:
        """Those that become readable when the other side sends something."""
        fds = (self._upgrade.fd, -1 if self._takeover is None else self._takeover.fd)
        return [fd for fd in fds if fd >= 0]

    @property
    def wake_at_s(self) -> float:
        """When to look if nothing happens before."""
        return self._upgrade.wake_at_s

    @property
    def begun(self) -> bool:
        """True if there is no way back to the server before."""
        return self._takeover is not None and self._takeover.step is not Step.STARTED

    @property
    def successor(self) -> Upgrade | None:
        """What has taken over from this server; None: nothing has."""
        return self._upgrade if self._upgrade.given_away else None

    def gate(self, role: Role) -> int:
        """Return where a process of a role has to wait; -1: nowhere."""
        return -1 if self._takeover is None else self._takeover.gate(role.waits)

    def look(self, now: float, generation: int) -> None:
        """Read what the other side sends, and do it. ``generation``: the greatest so far.

        Raises:
            StartError: the server before has ended too early, or has not let go.
        """
        self._generation = generation
        if self._takeover is not None:
            self._take_over(now)
        if self._upgrade.look(now) and not self._state.stopping:
            self._give_away(now)

    def serving(self) -> bool:
        """All processes serve. Returns whether others did so before them."""
        if self._takeover is None:
            return False
        log.warning("upgraded", extra={"version": self._config.version, "pid": os.getpid()})
        return True

    def ended(self, pid: int, how: process.Exit) -> bool:
        """Tell whether a process that has ended was the next supervisor."""
        return self._upgrade.ended(pid, how)

    def passed_on(self, number: int) -> bool:
        """Give a signal to the next supervisor, if that has taken over; tell whether it has."""
        upgrade = self._upgrade
        if not upgrade.given_away or upgrade.lost or number == signal.SIGCHLD:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(upgrade.pid, number)
        return True

    def pass_on_rest(self, signals: SignalQueue) -> None:
        """What has come until now is for the next supervisor; what comes later waits for whoever
        stays as its parent.
        """
        block_all()
        for number in signals.take():
            self.passed_on(number)

    def end(self) -> None:
        """The server stops: there will be no next one."""
        self._upgrade.end()

    def close_in_child(self) -> None:
        """In a child: close what is the supervisors' alone."""
        self._upgrade.close_in_child()
        if self._takeover is not None:
            self._takeover.close_in_child()

    # --- to the next version ----------------------------------------------------------------------
    def begin(self, generation: int, now: float) -> int:
        """Start the program that is on the disk, to take over; return its process.

        Raises:
            StartError: that is not possible now; it is in the log.
        """
        try:
            if not self._state.serving or self._state.stopping:
                raise StartError("the server is starting or stopping")
            self._upgrade.begin(generation, self.texts.get(self._config.key_role, ""), now)
        except StartError as error:
            log.error("upgrade_refused", extra={"reason": str(error)})
            raise
        return self._upgrade.pid

    def _begin_as_asked(self, _: Mapping[str, Any]) -> object:
        return {"pid": self.begin(self._generation, time.monotonic())}

    def _tell_state(self, _: Mapping[str, Any]) -> object:
        return self._upgrade.document()

    def _give_away(self, now: float) -> None:
        """The next version is ready: let it have everything, and end."""
        upgrade, config = self._upgrade, self._config
        log.warning("upgrade_ready", extra={"pid": upgrade.pid, "version": upgrade.version})
        config.manager.main_is(upgrade.pid)
        upgrade.give_away()
        self._spares.end()
        config.hasten()
        self._owners.give_away(self._generation + 1)
        self._state.stop(now, config.graceful_timeout_s())

    # --- from the version before ------------------------------------------------------------------
    def _take_over(self, now: float) -> None:
        """Tell the server before that this one is ready; see how far it is."""
        takeover = self._takeover
        assert takeover is not None
        if self._state.all_prepared and not self._state.stopping:
            takeover.ready(self._config.version)
        before = takeover.step
        if takeover.look() is before:
            return
        if takeover.step is Step.GONE:
            self._config.on_alone()
        for child in self._state.children:
            if child.held and child.role.waits <= takeover.step:
                self._state.released(child, now)
