"""The supervisor's part in an upgrade from one version to the next, on both sides."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import RelayError, StartError
from relay.server.supervisor import process
from relay.server.supervisor.boards import Boards
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.owners import Owners
from relay.server.supervisor.roles import Role, Step
from relay.server.supervisor.rolling import Leading, Lending
from relay.server.supervisor.signals import STOPS, SignalQueue, block_all
from relay.server.supervisor.spare import SpareKeeper
from relay.server.supervisor.state import Child, State
from relay.server.supervisor.upgrade import Upgrade

log = logging.getLogger("relay.supervisor")


class Succession:
    """Takes over from the previous server, if any, and gives way to the next one, if any."""

    def __init__(
        self,
        config: SupervisorConfig,
        state: State,
        boards: Boards,
        owners: Owners,
        spares: SpareKeeper,
    ) -> None:
        self._config = config
        self._state = state
        self._owners = owners
        self._spares = spares
        self._takeover = config.takeover
        self._boards = boards
        self._upgrade = Upgrade(config.program)
        self._lending = Lending(state, owners, boards, self._upgrade)
        self._leading = (
            Leading(state, owners, boards, config.takeover)
            if config.takeover is not None and boards.shared
            else None
        )
        self._stops = False
        """True if a stop signal was forwarded while the next server was in control: this one stops
        then."""
        self._generation = 0
        """The greatest generation of this server, as last reported."""
        before = self._takeover and self._takeover.handover
        self.first_generation = before.generation if before else 0
        self.texts = {config.key_role: before.fingerprint} if before else {}
        """By role: what a first process must report as well."""

    @property
    def requests(self) -> Mapping[str, Callable[[Mapping[str, Any]], object]]:
        """The requests it handles, by name."""
        return {"upgrade": self._begin_as_asked, "upgrade-state": self._tell_state}

    @property
    def descriptors(self) -> list[int]:
        """Descriptors that become readable when the other side sends something."""
        fds = (self._upgrade.fd, -1 if self._takeover is None else self._takeover.fd)
        return [fd for fd in fds if fd >= 0]

    @property
    def wake_at_s(self) -> float:
        """When to check if nothing happens before."""
        leading = self._leading
        return min(self._upgrade.wake_at_s, math.inf if leading is None else leading.wake_at_s)

    @property
    def begun(self) -> bool:
        """True if the previous server can no longer take over again."""
        return self._takeover is not None and self._takeover.step is not Step.STARTED

    @property
    def may_give_up(self) -> bool:
        """True if the previous server continues if this one ends."""
        return self._takeover is not None and not self.begun

    def take_stops(self) -> list[int]:
        """Return the stop signals that the previous server has passed on since the last call."""
        return [] if self._takeover is None else self._takeover.take_stops()

    @property
    def successor(self) -> Upgrade | None:
        """The server that has taken over from this one, or None."""
        return self._upgrade if self._upgrade.given_away else None

    @property
    def leads(self) -> bool:
        """True while this server controls workers of the previous one."""
        return self._leading is not None and self._leading.active

    def gate(self, role: Role) -> int:
        """Return where a process of a role must wait; -1: it need not."""
        if self._takeover is None or (self._leading is not None and role.owns_partitions):
            return -1
        return self._takeover.gate(role.waits)

    def look(self, now: float, generation: int) -> None:
        """Read and act on the other side's messages. ``generation``: the greatest so far.

        Raises:
            StartError: the previous server has ended too early, or has not let go.
        """
        self._generation = generation
        if self._takeover is not None:
            self._take_over(now)
        if self._upgrade.look(now, self._state.awake_s) and not self._state.stopping:
            self._proceed(now)
        self._lending.look()
        if self._lending.finished:
            self._state.lent = False
            self._give_away(now)
        if self._leading is not None:
            self._leading.look(now)

    def signal_before(self, child: Child, number: int) -> None:
        """Have a signal sent to a worker of the previous server."""
        assert self._takeover is not None
        self._takeover.kill(child.pid, number)

    def exited(self, child: Child, now: float) -> None:
        """A process of this server has ended. Called before the state changes."""
        self._lending.exited(child, now)

    def give_up(self, now: float) -> None:
        """This server cannot take over: it ends, and the previous one continues."""
        if self._leading is not None and self.leads:
            self._leading.give_up()
            self._config.expedite_stop()
            self._state.stop(now, self._config.graceful_timeout_s())
        else:
            self._state.stop_quickly(now)

    def serving(self) -> bool:
        """All processes serve. Returns True if others served before them."""
        if self._takeover is None:
            return False
        log.warning("upgraded", extra={"version": self._config.version, "pid": os.getpid()})
        return True

    def ended(self, pid: int, how: process.Exit, now: float) -> bool:
        """Return True if a process that has ended was the next supervisor."""
        lent = self._state.lent
        if not self._upgrade.ended(pid, how, stops=self._stops):
            return False
        if lent:
            patience_s = self._config.graceful_timeout_s()
            self._lending.take_back(now, patience_s)
            if self._stops:
                self._state.stop(now, patience_s)
        return True

    def passed_on(self, number: int) -> bool:
        """Forward a signal to the next supervisor if that is in control; return True if it is."""
        upgrade = self._upgrade
        if not (upgrade.given_away or upgrade.lent) or upgrade.lost or number == signal.SIGCHLD:
            return False
        if upgrade.lent and number in STOPS:
            self._stops = True
            upgrade.tell_stop(number)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(upgrade.pid, number)
        return True

    def pass_on_rest(self, signals: SignalQueue) -> None:
        """Forward the signals received so far to the next supervisor.

        The staying parent gets later ones.
        """
        block_all()
        for number in signals.take():
            self.passed_on(number)

    def reload(self) -> object:
        """Read the settings again, also in a next version that is getting ready.

        Raises:
            RelayError: they are refused, or the next version is in control: it has its own.
        """
        if self._state.lent:
            raise StartError("an upgrade is under way; try again when it is over")
        applied = self._config.reload()
        self._upgrade.tell_reload()
        return applied

    def end(self) -> None:
        """The server is stopping: there will be no next one."""
        self._upgrade.end()

    def close_in_child(self) -> None:
        """In a child: close what only supervisors use."""
        self._upgrade.close_in_child()
        if self._takeover is not None:
            self._takeover.close_in_child()

    # --- to the next version ----------------------------------------------------------------------
    def begin(self, generation: int, now: float) -> int:
        """Start the program on the disk, which is to take over; return its process id.

        Raises:
            StartError: that is not possible now; it has been logged.
        """
        try:
            if not self._state.serving or self._state.stopping:
                raise StartError("the server is starting or stopping")
            self._upgrade.begin(
                generation,
                self.texts.get(self._config.key_role, ""),
                now,
                self._boards.owners_fd,
                self._boards.formats,
            )
        except StartError as error:
            log.error("upgrade_refused", extra={"reason": str(error)})
            raise
        return self._upgrade.pid

    def _begin_as_asked(self, _: Mapping[str, Any]) -> object:
        return {"pid": self.begin(self._generation, time.monotonic())}

    def _tell_state(self, _: Mapping[str, Any]) -> object:
        return {
            **self._upgrade.document(),
            "to_leave": self._lending.to_leave,
            # At the switch this process stops, and the relay does not.
            "stopping": bool(self._state.stopping) and not self._upgrade.given_away,
        }

    def _proceed(self, now: float) -> None:
        """The next version is ready."""
        upgrade = self._upgrade
        rolls = not upgrade.differ and bool(self._state.owners)
        if rolls and not self._lending.possible:
            return  # retried in a moment
        log.warning(
            "upgrade_ready",
            extra={
                "pid": upgrade.pid,
                "version": upgrade.version,
                "worker_by_worker": rolls,
                "formats_differ": upgrade.differ,
            },
        )
        self._spares.end(now)
        if rolls:
            self._lending.begin(now)
        else:
            self._owners.give_away(self._generation + 1)
            self._give_away(now)

    def _give_away(self, now: float) -> None:
        """Give the next version everything, and end."""
        upgrade, config = self._upgrade, self._config
        config.manager.main_is(upgrade.pid)
        upgrade.give_away()
        config.expedite_stop()
        self._state.stop(now, config.graceful_timeout_s())

    # --- from the version before ------------------------------------------------------------------
    def _take_over(self, now: float) -> None:
        """Tell the previous server that this one is ready, and follow its progress."""
        takeover = self._takeover
        assert takeover is not None
        if self._state.all_prepared and not self._state.stopping:
            takeover.ready(self._config.version)
        before = takeover.step
        now_at = takeover.look()
        if takeover.take_reload():
            with contextlib.suppress(RelayError):  # it has been logged
                self._config.reload()
        if now_at is before:
            return
        if takeover.step is Step.GONE:
            self._config.on_alone()
        for child in self._state.children:
            if child.at_gate and child.role.waits <= takeover.step:
                self._state.released(child, now)
