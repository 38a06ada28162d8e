"""The kinds of processes that a supervisor runs, as data: a further kind is one more entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from relay.server.metrics import PROCESS, Metric
from relay.server.scoreboard import Scoreboard

SUPERVISOR_BOARD: Final = "supervisor"
"""The name of the supervisor's own scoreboard, beside those of the roles."""


class Step(IntEnum):
    """How far an upgrade is, by what the version before has done."""

    STARTED = 0
    """It serves, and the next one gets ready."""
    GAVE_AWAY = 1
    """Its workers have given up their partitions and leave."""
    GONE = 2
    """Nothing of it is left."""


class Closable(Protocol):
    """A listening socket, as far as the supervisor knows it."""

    def close(self) -> None:
        """Close it in this process."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What differs from one process of a role to the next. Given to ``Role.run`` in the child."""

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
    ready_fd: int
    r"""The process writes ``R TEXT\n`` when it serves, ``E message\n`` when it cannot. One that has
    a gate writes ``P\n`` before, when it has prepared all that it can in front of it."""
    text: str
    """The TEXT of the first process of the role that became ready; empty before."""
    gate_fd: int = -1
    """Readable once what the role ``waits`` for has happened; -1: it has."""


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of process.

    The supervisor starts roles in the order of its table and stops them in the reverse order, each
    when all processes of the one before have ended.
    """

    name: str
    """In the log."""
    title: str
    """Of the process, and what messages call it. ``{index}`` stands for its number."""
    run: Callable[[Launch], int]
    """The program. It is called in the child and returns the exit code."""
    boot_timeout_s: float
    """From the fork to ``R``; longer is a hang."""
    boot_failure_code: int
    """Exit code of the server when a process of this role cannot boot at the start."""
    count: int = 1
    indexed: bool = False
    """True where the log names its processes by number, even if there is only one."""
    needs: tuple[str, ...] = ()
    """Roles whose processes must all be ready before one of this role is started."""
    listeners: Callable[[], Sequence[Closable]] = lambda: ()
    """The listening sockets that it keeps; in the processes of other roles they are closed."""
    asks: bool = False
    """It may ask the supervisor to do something: ``SupervisorConfig.requests``."""
    waits: Step = Step.STARTED
    """In an upgrade it serves from this step of the one before on; STARTED: it does not wait."""
    owns_partitions: bool = False
    """Partition p belongs to process p mod count at the start. At most one role does."""
    outdated: Callable[[], bool] = lambda: False
    """Asked after the settings were read again: True: its processes are replaced by others."""
    renewed: Callable[[], bool] | None = None
    """Asked now and then while the server serves. True: what its processes were given, and cannot
    make again, was gone and is there again for those that replace them now."""
    count_max: int = 0
    """How many there may be later; 0: ``count``."""
    prepare: Callable[[], None] | None = None
    """Gives up what ``run`` does not need, and loads what it does. It is called in each process
    before ``run``; in one that waits for the place of another, before it waits. None: there is
    no such process."""
    metrics: Sequence[Metric] = PROCESS
    """What its rows of the scoreboard hold."""

    def title_of(self, index: int) -> str:
        """Return the title of one process."""
        return self.title.format(index=index)
