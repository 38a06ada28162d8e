"""Taking over from a running supervisor: the successor's side.

Until the previous server has given everything away, each process of a role that ``waits`` stops at
a gate: a pipe that becomes readable. A failure before that ends only this server, and the previous
one logs what it prints on stderr as the reason.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Self

from relay.errors import StartError
from relay.server.supervisor.handover import (
    VARIABLE,
    Handover,
    receive_messages,
    send_message,
    take_over,
)
from relay.server.supervisor.roles import Step
from relay.server.system.prctl import live_without_parent

FIRST_MESSAGE_S: Final = 10.0
STDERR: Final = 2


class Takeover:
    """The state of taking over from the previous server."""

    def __init__(self, line: socket.socket, handover: Handover) -> None:
        self.handover = handover
        self.step = Step.STARTED
        self.differ: list[str] = []
        """The formats that prevent workers of both versions from running side by side."""
        self.before: list[tuple[int, int, int]] | None = None
        """The previous server's workers as (slot, pid, generation), once this server is to control
        them."""
        self._exited: set[int] = set()
        self._reload = False
        self._stops: list[int] = []
        self.stays = True
        """True if the process that was started first has stayed, as the parent of the serving one.
        """
        self._line = line
        first = handover.parent_line
        self._parent_line = line if first < 0 else socket.socket(fileno=first)
        self._said_ready = False
        self._gates = {step: os.pipe2(os.O_CLOEXEC) for step in (Step.GAVE_AWAY, Step.GONE)}
        shared = handover.shared_descriptors.values()
        for fd in (*handover.descriptors, *shared):  # an earlier version had them all inherited
            os.set_inheritable(fd, False)
        self._errors_fd = os.dup(STDERR)
        os.dup2(handover.stderr, STDERR)
        os.close(handover.stderr)

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self | None:
        """Return what the environment names, and remove the variable. None: an ordinary start.

        Raises:
            StartError: this version cannot take over from the previous one.
        """
        number, _, parent = environ.pop(VARIABLE, "").partition(":")
        if not number or parent != str(os.getppid()):
            return None  # inherited through another child
        with contextlib.ExitStack() as undo:
            try:
                line = socket.socket(fileno=int(number))
                undo.callback(line.close)
                line.set_inheritable(False)
                line.settimeout(FIRST_MESSAGE_S)
                handover = take_over(line)
            except (OSError, ValueError, OverflowError, TypeError, LookupError) as error:
                raise StartError(f"nothing was handed over: {error}") from None
            undo.pop_all()
        line.setblocking(False)
        return cls(line, handover)

    @property
    def fd(self) -> int:
        """Readable when the previous server sends something or is gone; -1: it has sent all."""
        return -1 if self.step is Step.GONE else self._line.fileno()

    def check(self, data_format: int, fixed: dict[str, str]) -> None:
        """Compare with the properties of this version.

        Args:
            data_format: written by this version.
            fixed: settings that must be unchanged.

        Raises:
            StartError: it would have to change something that only a restart can change.
        """
        theirs = self.handover
        if theirs.data_format != data_format:
            raise StartError(
                f"this version keeps messages in format {data_format}, the one that runs in "
                f"{theirs.data_format}, and an upgrade changes no data: make a backup, stop it, "
                "and start this one"
            )
        for path, value in fixed.items():
            if theirs.fixed.get(path, value) != value:
                raise StartError(
                    f"{path} changes only with a restart; it is {theirs.fixed[path]}, and {value} "
                    "was found"
                )

    def board(self, formats: Mapping[str, str]) -> int:
        """Return the scoreboard of the workers; -1: they cannot run side by side, see ``differ``.

        ``formats``: of this version.
        """
        theirs = self.handover
        names = formats.keys() | theirs.formats.keys()
        self.differ = sorted(n for n in names if formats.get(n) != theirs.formats.get(n))
        if self.differ and theirs.board >= 0:
            os.close(theirs.board)
        return -1 if self.differ else theirs.board

    def gate(self, step: Step) -> int:
        """Return the descriptor at which a process waits for a step; -1: it was reached."""
        return -1 if self.step >= step else self._gates[step][0]

    def ready(self, version: str) -> None:
        """All is ready: the previous server may give everything away."""
        if not self._said_ready:
            self._said_ready = True
            send_message(self._line, ready=version, differ=self.differ)

    def leads(self) -> None:
        """Show that this server is in control, and alive."""
        send_message(self._line, leads=True)

    def finished(self) -> None:
        """All workers are this server's."""
        send_message(self._line, finished=True)

    def kill(self, pid: int, number: int) -> None:
        """Have the previous server, which alone knows whose a pid is, send a worker a signal."""
        send_message(self._line, kill=pid, signal=number)

    def take_exited(self) -> set[int]:
        """Return the pids of its workers that have ended since the last call."""
        exited, self._exited = self._exited, set()
        return exited

    def take_reload(self) -> bool:
        """Return True if the previous server has read its settings again since the last call."""
        told, self._reload = self._reload, False
        return told

    def take_stops(self) -> list[int]:
        """Return the stop signals that the previous server has passed on since the last call."""
        stops, self._stops = self._stops, []
        return stops

    def look(self) -> Step:
        """Return its progress.

        Raises:
            StartError: the previous server has ended without giving everything away.
        """
        if self.step is Step.GONE:
            return self.step
        try:
            for message in receive_messages(self._line):
                self._take(message)
        except EOFError:
            if self.step is Step.STARTED and self.before is None:
                raise StartError("the server that was to be upgraded has ended") from None
            self.stays = False
            self._reach(Step.GONE)
        return self.step

    def _take(self, message: dict[str, Any]) -> None:
        if "lead" in message:
            self.before = [(index, pid, number) for index, pid, number in message["lead"]]
            live_without_parent()
        elif "stop" in message:
            self._stops.append(message["stop"])
        elif "reload" in message:
            self._reload = True
        elif "exited" in message:
            self._exited.add(message["exited"])
        elif "step" in message:
            self.stays = bool(message.get("stays", self.stays))
            self._reach(Step(message["step"]))

    def _reach(self, step: Step) -> None:
        if self.step is Step.STARTED:
            live_without_parent()
            os.close(self._errors_fd)
        self.step = step
        for at, (_, write_fd) in self._gates.items():
            if at <= step:
                os.write(write_fd, b"+")

    def failed(self) -> None:
        """This server ends: what it prints on stderr is for the previous one."""
        if self.step is Step.STARTED:
            os.dup2(self._errors_fd, STDERR)

    def close(self) -> None:
        """This server has ended."""
        self._line.close()
        self._parent_line.close()

    @property
    def parent_fd(self) -> int:
        """The line to the process that has stayed; -1: none has."""
        return self._parent_line.fileno() if self.stays else -1

    def main_is(self, pid: int) -> None:
        """Tell the process that has stayed that another one serves from now on."""
        send_message(self._parent_line, main=pid)

    def close_in_child(self) -> None:
        """In a child: close everything except its gate."""
        self._line.close()
        self._parent_line.close()
        if self.step is Step.STARTED:
            os.close(self._errors_fd)
        for _, write_fd in self._gates.values():
            os.close(write_fd)
