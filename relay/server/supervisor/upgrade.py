"""Letting another version take over, as the supervisor that runs sees it.

The program on the disk is started as a child, with all sockets. It gets ready beside the server
that runs, up to the partitions, which have one writer. If it does not get ready it is gone, the log
has the reason, and nothing else has happened. If it does, it is given everything.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from relay.errors import StartError
from relay.server.supervisor import process
from relay.server.supervisor.handover import VARIABLE, Handover, heard, tell
from relay.server.supervisor.roles import Step

READY_S: Final = 150.0
"""The next one must be ready by then. Its processes have limits of their own, which are shorter."""
REASON_BYTES_MAX: Final = 16_384
REASON_CHARS_MAX: Final = 250
GENERATIONS: Final = 1000
"""The next one's numbers begin at the next multiple of it."""
log = logging.getLogger("relay.supervisor")


@dataclass(frozen=True, slots=True)
class Program:
    """What is started as the next supervisor."""

    command: Sequence[str]
    environ: Mapping[str, str]
    hand_over: Callable[[int, str], Handover]
    """Returns what it gets, given the least generation and the key's fingerprint."""


class Upgrade:
    """At most one at a time."""

    def __init__(self, program: Program | None) -> None:
        """Begin without one. None: this server cannot be upgraded."""
        self._program = program
        self.pid = 0
        """Of the next supervisor; 0: there is none."""
        self.version = ""
        """Of the next supervisor, once it is ready."""
        self.given_away = False
        """It was ready, and has everything."""
        self.lost = False
        """It has ended since."""
        self._line: socket.socket | None = None
        self._errors_fd = -1
        self._ready_by_s = math.inf
        self._failed = ""

    @property
    def fd(self) -> int:
        """Readable when it sends something; -1: there is none."""
        return -1 if self._line is None or self.given_away else self._line.fileno()

    @property
    def wake_at_s(self) -> float:
        """When to look if nothing happens before."""
        return self._ready_by_s

    def document(self) -> dict[str, object]:
        """Return how the last one went: for ``relay ctl upgrade``."""
        return {"upgrading": bool(self.pid), "failed": self._failed}

    def begin(self, generation: int, fingerprint: str, now: float) -> None:
        """Start the next supervisor.

        Raises:
            StartError: there is one already, or there can be none.
        """
        program = self._program
        if program is None or self.pid:
            raise StartError("an upgrade is under way" if self.pid else "it cannot be upgraded")
        try:
            self._spawn(program, (generation // GENERATIONS + 1) * GENERATIONS, fingerprint)
        except OSError as error:
            raise StartError(f"it cannot be forked: {error.strerror}") from None
        self._ready_by_s, self._failed, self.version = now + READY_S, "", ""
        log.warning("upgrade_began", extra={"pid": self.pid, "command": list(program.command)})

    def _spawn(self, program: Program, least: int, fingerprint: str) -> None:
        """Start it. Raises OSError: no process, memory or descriptor is left for it."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.callback(near.close)
            theirs.callback(far.close)
            near.setblocking(False)
            read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            ours.callback(os.close, read_fd)
            theirs.callback(os.close, write_fd)
            os.set_blocking(write_fd, True)
            handover = program.hand_over(least, fingerprint)
            theirs.callback(os.close, handover.stderr)  # a copy, made for the next one
            environ = {**program.environ, VARIABLE: f"{far.fileno()}:{os.getpid()}"}
            self.pid = process.spawn(
                program.command, environ, [*handover.descriptors, far.fileno()], write_fd
            )
            ours.pop_all()
        self._line, self._errors_fd = near, read_fd
        tell(near, **msgspec.to_builtins(handover))

    def look(self, now: float) -> bool:
        """Return True once: the next supervisor is ready to be given everything."""
        if self._line is None or self.given_away:
            return False
        if now >= self._ready_by_s:
            self._ready_by_s = math.inf
            self._failed = f"it was not ready within {READY_S:.0f} s"
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(EOFError):  # its end is reported by ``ended``
            for message in heard(self._line):
                self.version = str(message.get("ready", ""))
        return bool(self.version) and not self._failed

    def give_away(self) -> None:
        """Let it begin: this server's workers leave from now on."""
        assert self._line is not None
        self.given_away = True
        self._ready_by_s = math.inf
        tell(self._line, step=Step.GAVE_AWAY)

    def gone(self, *, stays: bool) -> socket.socket:
        """Tell it that nothing is left of this server; return the line.

        ``stays``: the process that was started first goes on, as the parent of what serves.
        """
        assert self._line is not None
        tell(self._line, step=Step.GONE, stays=stays)
        return self._line

    def ended(self, pid: int, how: process.Exit) -> bool:
        """Tell whether a process that has ended was the next supervisor."""
        if not self.pid or pid != self.pid:
            return False
        if self.given_away:
            self.lost = True
            log.error("upgrade_lost", extra={"pid": pid, "how": str(how)})
            return True
        reason = self._failed or self._reason() or f"it ended with {how}"
        log.error("upgrade_failed", extra={"pid": pid, "reason": reason})
        self._failed = reason
        self._forget()
        return True

    def end(self) -> None:
        """The server stops: there will be no other one."""
        if self.pid and not self.given_away:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close_in_child(self) -> None:
        """In a child: it has nothing to do with it."""
        if self._line is not None:
            self._line.close()
            os.close(self._errors_fd)

    def _reason(self) -> str:
        """Return the last line that it printed."""
        printed = b""
        with contextlib.suppress(OSError):
            while len(printed) < REASON_BYTES_MAX and (more := os.read(self._errors_fd, 4096)):
                printed += more
        lines = printed.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return last.strip().removeprefix("relay: ")[:REASON_CHARS_MAX]

    def _forget(self) -> None:
        assert self._line is not None
        self._line.close()
        os.close(self._errors_fd)
        self.pid, self._line, self._errors_fd = 0, None, -1
        self._ready_by_s = math.inf
