"""A standby process that has loaded a program, and takes the slot of one that dies.

Loading is most of a worker's start. The spare owns nothing, serves nobody, and has no more rights
than a worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from relay.server.boot_report import BootReport
from relay.server.supervisor import process
from relay.server.supervisor.roles import Role
from relay.server.supervisor.state import Child, State
from relay.server.system.scheduling import others_first

LOADING: Final = "relay: loading spare"
LOADED: Final = b"L"
"""Sent to the supervisor."""
TITLE: Final = "relay: spare"
"""Once it has loaded everything."""
_PLACE: Final = struct.Struct("=QQ")
log = logging.getLogger("relay.supervisor")


@dataclass(frozen=True, slots=True)
class Spare:
    """A waiting spare process."""

    process: process.Process
    line: socket.socket
    """The spare writes that it has loaded everything; then its slot is written here."""

    @classmethod
    def fork(
        cls,
        prepare: Callable[[], None],
        run: Callable[[tuple[int, int], BootReport], int],
        reset: Callable[[], None],
    ) -> Self:
        """Fork it.

        Args:
            prepare: drops what the program does not need, and loads it.
            run: the program, given (index, generation) and where to report.
            reset: closes what only the supervisor uses.

        Raises:
            OSError: no process can be created.
        """
        ours, theirs = socket.socketpair()

        def main(boot: BootReport) -> int:
            ours.close()
            with others_first():  # they have clients
                prepare()
            place = b""
            with contextlib.suppress(OSError):  # what the supervisor had not read when it ended
                theirs.send(LOADED)
                process.set_title(TITLE)
                place = theirs.recv(_PLACE.size)
            theirs.close()
            if len(place) < _PLACE.size:
                return 0  # the supervisor is gone
            index, generation = _PLACE.unpack(place)
            return run((index, generation), boot)

        try:
            started = process.fork(LOADING, main, reset)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(started, ours)

    def give_place(self, index: int, generation: int) -> bool:
        """Let it run in this slot. False: it has just died, or was still loading and is killed.

        It loads slowly; a new process is ready sooner.
        """
        try:
            if self.line.recv(1, socket.MSG_DONTWAIT) == LOADED:
                self.line.send(_PLACE.pack(index, generation), socket.MSG_NOSIGNAL)
                self.line.close()
                return True
        except OSError:
            pass
        self.kill()
        return False

    def kill(self) -> None:
        """End it; the supervisor reaps it like any other."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Close its pipes in this process."""
        self.line.close()
        self.process.close()


class SpareKeeper:
    """Keeps one spare for the role with a ``load_ahead``, if there is such a role."""

    def __init__(
        self,
        state: State,
        roles: Sequence[Role],
        run: Callable[[Role, int, int, BootReport], int],
        reset: Callable[[], None],
    ) -> None:
        """Create without a spare.

        Args:
            state: of the children; it decides when one is started.
            roles: of the server; empty: no spare is kept.
            run: in a child, the program of a role that has prepared, given index, generation and
                where to report.
            reset: in a child, closes what only the supervisor uses.
        """
        self._state = state
        self._run = run
        self._reset = reset
        self._role = next((role for role in roles if role.load_ahead is not None), None)
        self._spare: Spare | None = None
        state.spare_wanted = self._role is not None

    def start(self, now: float) -> None:
        """Fork it; if that fails, retry later."""
        role = self._role
        assert role is not None
        load = role.load_ahead
        assert load is not None

        def prepare() -> None:
            role.prepare()
            load()

        try:
            self._spare = Spare.fork(
                prepare,
                lambda place, boot: self._in_place(role, *place, boot),
                self._reset,
            )
        except OSError as error:
            log.warning("spare_failed", extra={"reason": error.strerror})
            self._state.spare_used(now)
        else:
            self._state.spare_pid = self._spare.process.pid

    def use(self, child: Child, generation: int, now: float) -> process.Process | None:
        """Give it a slot; None: there is no spare for it."""
        if self._spare is None or child.role is not self._role:
            return None
        spare, self._spare = self._spare, None
        self._state.spare_used(now)
        return spare.process if spare.give_place(child.index, generation) else None

    def ended(self, pid: int, how: process.Exit, now: float) -> bool:
        """Return True if a process that has ended was the spare."""
        if self._spare is None or self._spare.process.pid != pid:
            return False
        _, _, reason = (self._spare.process.read() or "").partition(" ")
        self._spare.close()
        self._spare = None
        self._state.spare_used(now)
        log.warning("spare_exited", extra={"pid": pid, "how": str(how), "reason": reason})
        return True

    def end(self, now: float) -> None:
        """Kill it. Another one is started later, if one is still wanted then."""
        if self._spare is not None:
            self._spare.kill()
            self._spare = None
            self._state.spare_used(now)

    def close(self) -> None:
        """In a child: close its pipes."""
        if self._spare is not None:
            self._spare.close()

    def _in_place(self, role: Role, index: int, generation: int, boot: BootReport) -> int:
        process.set_title(f"relay: {role.title_of(index)}")
        return self._run(role, index, generation, boot)
