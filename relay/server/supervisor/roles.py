"""The kinds of processes that a supervisor runs, as data: another kind is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from relay.server.boot import Boot
from relay.server.metrics import PROCESS, Metric
from relay.server.scoreboard import Scoreboard

SUPERVISOR_BOARD: Final = "supervisor"
"""The name of the supervisor's own scoreboard, beside those of the roles."""


class Step(IntEnum):
    """The progress of an upgrade: what the previous version has done."""

    STARTED = 0
    """It serves, and the next one prepares."""
    GAVE_AWAY = 1
    """Its workers have given up their partitions and leave."""
    GONE = 2
    """Nothing of it is left."""


class Closable(Protocol):
    """The part of a listening socket that the supervisor uses."""

    def close(self) -> None:
        """Close it in this process."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters of one process of a role: passed to ``Role.run`` in the child."""

    index: int
    generation: int
    boards: Mapping[str, Scoreboard]
    """Of all roles by name, and of the supervisor: a row for each of their processes."""
    scoreboard: Scoreboard
    """Of the role."""
    line_fd: int
    """The far end of a socket pair to the supervisor, in a role that ``asks``; else -1."""
    parent_fd: int
    r"""Read end of a pipe: end of file when the supervisor is gone."""
    boot: Boot
    text: str
    """The TEXT of the first process of the role that became ready; empty before."""
    gate_fd: int = -1
    """Readable once the step that the role ``waits`` for has been reached; -1: it has."""


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of process.

    The supervisor starts roles in the order of its table. It stops them in reverse order, each when
    all processes of the previous one have ended.
    """

    name: str
    """In the log."""
    title: str
    """Of the process, also used in messages. ``{index}`` stands for its number."""
    run: Callable[[Launch], int]
    """The program. It is called in the child and returns the exit code."""
    boot_timeout_s: float
    """From the fork to ``R``; if it takes longer, the process hangs."""
    boot_failure_code: int
    """Exit code of the server if a process of this role cannot boot at the start."""
    count: int = 1
    indexed: bool = False
    """True if the log names its processes by number, even if there is only one."""
    needs: tuple[str, ...] = ()
    """Roles whose processes must all be ready before one of this role is started."""
    listeners: Callable[[], Sequence[Closable]] = lambda: ()
    """Returns the listening sockets that it keeps; processes of other roles close them."""
    asks: bool = False
    """True if it may make requests to the supervisor: ``SupervisorConfig.requests``."""
    waits: Step = Step.STARTED
    """In an upgrade it serves from this step of the previous version on; STARTED: it does not wait.
    """
    owns_partitions: bool = False
    """Partition p belongs to process p mod count at the start. At most one role owns partitions."""
    outdated: Callable[[], bool] = lambda: False
    """Called after the settings were read again. True: its processes are replaced."""
    renewed: Callable[[], bool] | None = None
    """Called from time to time while the server serves. True: something that its processes were
    given, and cannot recreate, was missing and has been recreated, so they are replaced."""
    count_max: int = 0
    """Maximum number later; 0: ``count``."""
    load: Callable[[], None] = lambda: None
    """Imports what its processes can share. It is called once, in the supervisor, when the first
    processes of the server were started. What it cannot import, each process imports and reports.
    """
    prepare: Callable[[], None] = lambda: None
    """Drops what ``run`` does not need. Called in each process before ``run``; in a spare process,
    before it loads."""
    load_ahead: Callable[[], None] | None = None
    """Imports all that ``run`` needs. Called only in a spare process, before it waits. None: there
    is no spare process."""
    metrics: Sequence[Metric] = PROCESS
    """The content of its rows of the scoreboard."""

    def title_of(self, index: int) -> str:
        """Return the title of one process."""
        return self.title.format(index=index)
