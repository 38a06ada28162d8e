"""What the supervisor knows of its children, and how events change it. Pure, as ``plan``."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from relay.server.supervisor.roles import Role

CRASH_WINDOW_S: Final = 30.0
CRASHES_AT_ONCE: Final = 2
"""Restarts within the window that are immediate: two are no loop yet, such as a worker that an
operator kills, or one that the kernel kills again for memory while its clients come back."""
CRASHES_FAST: Final = 4
"""Restarts within the window that are quick; from the next on they are slowed down for good."""
BACKOFF_FAST_S: Final = 0.1
"""Before the first restart that waits; doubled for each one more."""
BACKOFF_SLOW_S: Final = 1.0
BACKOFF_SERVED_MAX_S: Final = 2.0
"""For a child that served: its partitions wait. A fork a second or two is no fork bomb."""
BACKOFF_BOOT_S: Final = 0.5
BACKOFF_BOOT_MAX_S: Final = 30.0
"""For a child that never served: whatever is wrong takes a person to mend."""
SPARE_AFTER_S: Final = 5.0
"""From the start of the service, or from the use or the end of a spare process, to the next one: it
must not take the processor from those who begin."""
KILL_MARGIN_S: Final = 1.0
"""After the time that clients were given, for the worker to close its files."""
QUICK_STOP_S: Final = 2.0


class Phase(Enum):
    """Where a child is in its life."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"


@dataclass(slots=True)
class Child:
    """One place for a process of a role."""

    role: Role
    index: int = 0
    phase: Phase = Phase.DOWN
    pid: int = 0
    """0 when there is none."""
    generation: int = 0
    """Of the process that runs, or ran last."""
    since_s: float = 0.0
    """When the phase began."""
    heartbeat_s: float = 0.0
    """The last sign of life that its loop gave; 0 before the first."""
    start_at_s: float = 0.0
    """When it is down: not to be started before."""
    crashes: list[float] = field(default_factory=list)
    """Deaths within the window."""
    failed_boots: int = 0
    """In a row."""
    sent: int = 0
    """The strongest signal that it was sent: 0, TERM, QUIT or KILL."""
    held: bool = False
    """It has prepared everything, and waits for the server before this one."""
    leave_by_s: float = 0.0
    """It was asked to leave, and is killed if it is there then; 0: it was not asked."""
    replace: bool = False
    """It is to leave, when its turn comes, for a new one in its place."""
    surplus: bool = False
    """It is to leave for good."""
    before: bool = False
    """It is of the server before, which is upgraded to this one, worker by worker. Surplus."""
    yielded: bool = False
    """It accepts no connections now."""

    @property
    def name(self) -> str:
        """For people."""
        return self.role.title_of(self.index)

    @property
    def fields(self) -> dict[str, object]:
        """What a line of the log has of it."""
        number: object = self.index if self.role.indexed else True
        return {"pid": self.pid, "generation": self.generation, self.role.name: number}


@dataclass(slots=True)
class State:
    """All that decisions are made from."""

    roles: tuple[Role, ...]
    heartbeat_timeout_s: float
    age_max_s: float = 0.0
    """A process that owns partitions and is older is replaced; 0: never."""
    lent: bool = False
    """The next version decides about the processes that own partitions: all they need is there."""
    spare_wanted: bool = False
    """A process is to be kept ready for the place of one that dies."""
    spare_at_s: float = 0.0
    """When there is none: not to be started before."""
    spare_pid: int = 0
    """0 when there is none."""
    children: list[Child] = field(init=False)
    """Of all roles, in their order."""
    serving: bool = False
    """True once every child was ready: the start is over."""
    stopping: int = 0
    """0, or the signal that children are stopped with: TERM, then QUIT."""
    kill_at_s: float = 0.0
    """When stopping: what is left is killed then."""
    awake_s: float = 0.0
    """Since when the supervisor itself has run without a stop: older silence proves nothing."""

    def __post_init__(self) -> None:
        assert len({role.name for role in self.roles}) == len(self.roles)
        self.children = [Child(role, n) for role in self.roles for n in range(role.count)]

    def of(self, name: str) -> list[Child]:
        """Return the children of a role."""
        return [child for child in self.children if child.role.name == name]

    def started(self, child: Child, pid: int, generation: int, now: float) -> None:
        """A process was forked."""
        child.phase, child.pid, child.generation = Phase.STARTING, pid, generation
        child.since_s, child.heartbeat_s, child.sent = now, 0.0, 0
        child.leave_by_s, child.replace, child.held = 0.0, False, False

    def prepared(self, child: Child) -> None:
        """A child has done what it can, and waits: however long that takes, it does not hang."""
        child.held, child.since_s = True, math.inf

    def released(self, child: Child, now: float) -> None:
        """A child waits no more."""
        child.held, child.since_s = False, now

    @property
    def all_prepared(self) -> bool:
        """True if every child serves, or waits for the server before this one."""
        return all(child.held or child.phase is Phase.READY for child in self.children)

    def became_ready(self, child: Child, now: float) -> bool:
        """A child serves. Returns True when this ends the start of the server."""
        child.phase, child.since_s, child.failed_boots = Phase.READY, now, 0
        if self.serving or any(other.phase is not Phase.READY for other in self.children):
            return False
        self.serving = True
        self.spare_at_s = now + SPARE_AFTER_S
        return True

    def exited(self, child: Child, now: float, chance: float) -> None:
        """A process ended. ``chance`` is a random number in [0, 1) that spreads restarts."""
        served = child.phase is Phase.READY
        left = served and bool(child.leave_by_s)
        child.phase, child.pid, child.since_s = Phase.DOWN, 0, now
        if child.surplus:
            self.children.remove(child)
        if left and not child.sent:  # as it was asked to
            child.start_at_s = now
            return
        child.crashes = [when for when in child.crashes if now - when < CRASH_WINDOW_S]
        child.crashes.append(now)
        child.failed_boots = 0 if served else child.failed_boots + 1
        child.start_at_s = now + backoff_s(len(child.crashes), child.failed_boots, chance)

    def spare_used(self, now: float) -> None:
        """The spare process has taken a place, or has ended."""
        self.spare_pid, self.spare_at_s = 0, now + SPARE_AFTER_S

    def leaves(self, child: Child, now: float, patience_s: float) -> None:
        """A process was asked to leave, and has so long for it."""
        child.leave_by_s = now + patience_s + KILL_MARGIN_S
        child.replace = False

    def replace_all(self) -> int:
        """Replace the processes that own partitions, one after the other. Returns how many."""
        chosen = [child for child in self.owners if not child.surplus]
        for child in chosen:
            child.replace = True
        return len(chosen)

    def resize(self, count: int) -> None:
        """Change the number of processes that own partitions, one at least."""
        role = self.owners[0].role
        staying = [child for child in self.owners if not child.surplus]
        missing = count - len(staying)
        # One that is on its way out keeps its place until it is gone; a new one takes it then.
        for child in [child for child in self.owners if child.surplus][: max(0, missing)]:
            child.surplus, child.replace = False, not child.leave_by_s
            missing -= 1
        for child in staying[count:]:
            child.surplus = True
            if not child.pid:
                self.children.remove(child)
        self._add_places(role, missing)

    def _add_places(self, role: Role, count: int) -> None:
        """Have so many more, with the lowest numbers that are free."""
        taken = {child.index for child in self.of(role.name)}
        free = (number for number in itertools.count() if number not in taken)
        self.children += [Child(role, next(free)) for _ in range(count)]
        order = {role.name: number for number, role in enumerate(self.roles)}
        self.children.sort(key=lambda child: (order[child.role.name], child.index))

    def wait_to_lead(self) -> None:
        """Start nothing that owns partitions before ``lead``."""
        self.children = [child for child in self.children if not child.role.owns_partitions]

    def lead(self, before: Sequence[tuple[int, int, int]], now: float) -> None:
        """Decide from now on about those of the server before, given (place, pid, generation).

        They go on until this server's own all serve beside them, and leave one after the other.
        """
        role = next(role for role in self.roles if role.owns_partitions)
        self.children += [
            Child(role, index, Phase.READY, pid, generation, now, surplus=True, before=True)
            for index, pid, generation in before
        ]
        self._add_places(role, role.count)

    @property
    def before(self) -> list[Child]:
        """Those of the server before about which this one decides."""
        return [child for child in self.children if child.before]

    @property
    def owners(self) -> list[Child]:
        """The processes of the role that owns partitions."""
        return [child for child in self.children if child.role.owns_partitions]

    @property
    def staying(self) -> list[int]:
        """The numbers of those that partitions can be given to."""
        return [
            child.index
            for child in self.owners
            if child.phase is Phase.READY and not child.leave_by_s and not child.surplus
        ]

    def stop(self, now: float, graceful_timeout_s: float) -> None:
        """Stop gracefully; when stopping already, stop at once."""
        if not self.stopping:
            self.stopping = signal.SIGTERM
            self.kill_at_s = now + graceful_timeout_s + KILL_MARGIN_S
        else:
            self.stop_quickly(now)

    def stop_quickly(self, now: float) -> None:
        """Stop without waiting for clients."""
        self.stopping = signal.SIGQUIT
        self.kill_at_s = now + QUICK_STOP_S


def backoff_s(crashes: int, failed_boots: int, chance: float) -> float:
    """Return how long a restart waits, after so many deaths within the window.

    Exponential, and spread over half of its length so that slots do not move in step.
    """
    if failed_boots:
        delay = min(BACKOFF_BOOT_MAX_S, BACKOFF_BOOT_S * 2.0 ** min(failed_boots - 1, 16))
    elif crashes <= CRASHES_AT_ONCE:
        return 0.0
    elif crashes <= CRASHES_FAST:
        delay = BACKOFF_FAST_S * 2.0 ** (crashes - CRASHES_AT_ONCE - 1)
    else:
        slow = BACKOFF_SLOW_S * 2.0 ** min(crashes - CRASHES_FAST - 1, 16)
        delay = min(BACKOFF_SERVED_MAX_S, slow)
    return delay * (0.5 + chance / 2)
