"""Letting another version take over: the running supervisor's side.

The program on the disk is started as a child, with all sockets. It prepares beside the running
server, except for the partitions, which have one writer. If it does not become ready, it is ended,
the log has the reason, and nothing else has happened. If it does, it gets everything: after it was
lent the workers and has replaced them, or at once, if workers of both cannot run side by side.
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
from types import MappingProxyType
from typing import Any, Final

from msgspec.structs import replace

from relay.errors import StartError
from relay.server.supervisor import process
from relay.server.supervisor.handover import (
    VARIABLE,
    Handover,
    hand_over,
    receive_messages,
    send_message,
)
from relay.server.supervisor.roles import Step
from relay.server.system.resource_limits import fork_refusal

READY_S: Final = 150.0
"""The next server must be ready by then. Its processes have shorter limits of their own."""
LEADS_S: Final = 30.0
"""A server in control shows every second that it is alive; longer silence means that it hangs."""
STOPPED: Final = "the relay is stopping"
"""The reason for the end of a next version that was not an error."""
REASON_BYTES_MAX: Final = 16_384
REASON_CHARS_MAX: Final = 250
GENERATIONS: Final = 1000
"""The next server's generations begin at the next multiple of this."""
log = logging.getLogger("relay.supervisor")


@dataclass(frozen=True, slots=True)
class Program:
    """What is started as the next supervisor."""

    command: Sequence[str]
    environ: Mapping[str, str]
    hand_over: Callable[[int, str], Handover]
    """Returns what it gets, given the lowest generation and the key's fingerprint."""


class Upgrade:
    """The upgrade in progress, if any. At most one at a time."""

    def __init__(self, program: Program | None) -> None:
        """Create without one. None: this server cannot be upgraded."""
        self._program = program
        self.pid = 0
        """Of the next supervisor; 0: there is none."""
        self.version = ""
        """Of the next supervisor, once it is ready."""
        self.differ: list[str] = []
        """Its formats that prevent its workers from running beside this server's."""
        self.lent = False
        """True while it controls this server's workers."""
        self.finished = False
        """True once it no longer needs them."""
        self.given_away = False
        """True if it was ready and has been given everything."""
        self.lost = False
        """True if it has ended since then."""
        self._line: socket.socket | None = None
        self._errors_fd = -1
        self._ready_by_s = math.inf
        self._failed = ""
        self._kills: list[tuple[int, int]] = []

    @property
    def fd(self) -> int:
        """Readable when it sends something; -1: there is none."""
        return -1 if self._line is None or self.given_away else self._line.fileno()

    @property
    def wake_at_s(self) -> float:
        """When to check if nothing happens before."""
        return self._ready_by_s

    def document(self) -> dict[str, object]:
        """Return the result of the last one: for ``relay ctl upgrade``."""
        return {"upgrading": bool(self.pid), "failed": self._failed}

    def begin(
        self,
        generation: int,
        fingerprint: str,
        now: float,
        board: int = -1,
        formats: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start the next supervisor.

        Args:
            generation: the greatest of this server.
            fingerprint: of its key.
            now: monotonic seconds.
            board: the workers' scoreboard.
            formats: must be equal for the scoreboard to be shared.

        Raises:
            StartError: there is one already, or none is possible.
        """
        program = self._program
        if program is None or self.pid:
            raise StartError("an upgrade is under way" if self.pid else "it cannot be upgraded")
        try:
            least = (generation // GENERATIONS + 1) * GENERATIONS
            self._spawn(
                program, least, fingerprint, lambda h: replace(h, board=board, formats={**formats})
            )
        except OSError as error:
            raise StartError(fork_refusal(error)) from None
        self._ready_by_s, self._failed, self.version = now + READY_S, "", ""
        log.warning("upgrade_began", extra={"pid": self.pid, "command": list(program.command)})

    def _spawn(
        self,
        program: Program,
        least: int,
        fingerprint: str,
        complete: Callable[[Handover], Handover],
    ) -> None:
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
            handover = complete(program.hand_over(least, fingerprint))
            theirs.callback(os.close, handover.stderr)  # a copy, made for the next one
            environ = {**program.environ, VARIABLE: f"{far.fileno()}:{os.getpid()}"}
            self.pid = process.spawn(
                program.command, environ, [*handover.descriptors, far.fileno()], write_fd
            )
            ours.pop_all()
        self._line, self._errors_fd = near, read_fd
        hand_over(near, handover)

    def look(self, now: float, awake_s: float) -> bool:
        """Read what it sends. Returns True if it is ready and has been given nothing yet.

        ``awake_s``: since when this process has run without interruption.
        """
        if self._line is None or self.given_away:
            return False
        with contextlib.suppress(EOFError):  # ``ended`` reports its end
            for message in receive_messages(self._line):
                self._take(message, now)
        if now >= max(self._ready_by_s, awake_s + (LEADS_S if self.lent else READY_S)):
            self._ready_by_s = math.inf
            self._failed = (
                f"it did not report for {LEADS_S:.0f} s that it runs"
                if self.lent
                else f"it was not ready within {READY_S:.0f} s"
            )
            os.kill(self.pid, signal.SIGKILL)
        return bool(self.version) and not self._failed and not self.lent

    def _take(self, message: dict[str, Any], now: float) -> None:
        if self.lent:
            self._ready_by_s = now + LEADS_S
            self.finished = self.finished or "finished" in message
            if "kill" in message:
                self._kills.append((message["kill"], message["signal"]))
        elif "ready" in message:
            self.version = str(message["ready"])
            # A version that does not report this takes everything at once.
            self.differ = [str(name) for name in message.get("differ", ["upgrade"])]

    def take_kills(self) -> list[tuple[int, int]]:
        """Return (pid, signal) of the signals that it wants sent, since the last call."""
        kills, self._kills = self._kills, []
        return kills

    def tell_reload(self) -> None:
        """The settings were read again: the next server may have read the previous ones."""
        if self._line is not None and not self.given_away:
            send_message(self._line, reload=True)

    def tell_stop(self, number: int) -> None:
        """All workers are to stop, as after this signal.

        A message: a signal to the next server alone would end the upgrade, not both servers.
        """
        assert self._line is not None
        send_message(self._line, stop=number)

    def lend(self, workers: Sequence[tuple[int, int, int]], now: float) -> None:
        """Give it control of this server's workers: (slot, pid, generation) of each."""
        assert self._line is not None
        self.lent, self._ready_by_s = True, now + LEADS_S
        send_message(self._line, lead=workers)

    def tell_exited(self, pid: int) -> None:
        """A worker that it controls has ended."""
        assert self._line is not None
        send_message(self._line, exited=pid)

    def give_away(self) -> None:
        """Let it begin: this server's workers leave from now on."""
        assert self._line is not None
        self.given_away, self.lent = True, False
        self._ready_by_s = math.inf
        send_message(self._line, step=Step.GAVE_AWAY)

    def gone(self, *, stays: bool) -> socket.socket:
        """Tell it that nothing is left of this server; return the line.

        ``stays``: the process that was started first stays, as the parent of the serving one.
        """
        assert self._line is not None
        send_message(self._line, step=Step.GONE, stays=stays)
        return self._line

    def ended(self, pid: int, how: process.Exit, *, stops: bool = False) -> bool:
        """Return True if a process that has ended was the next supervisor.

        ``stops``: as requested.
        """
        if not self.pid or pid != self.pid:
            return False
        if self.given_away:
            self.lost = True
            log.error("upgrade_lost", extra={"pid": pid, "how": str(how)})
            return True
        reason = self._failed or self._reason() or f"it ended with {how}"
        if not stops and reason != STOPPED:
            log.error("upgrade_failed", extra={"pid": pid, "reason": reason})
        self._failed = reason
        self._forget()
        return True

    def end(self) -> None:
        """The server is stopping: there will be no next one."""
        if self.pid and not self.given_away and not self.lent:
            self._failed = self._failed or STOPPED
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close_in_child(self) -> None:
        """In a child: close what it does not use."""
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
        self.lent = self.finished = False
        self._kills.clear()
        self._ready_by_s = math.inf
