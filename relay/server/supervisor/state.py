"""What the supervisor knows about its children, and how events change it. Pure, like ``plan``."""

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
"""Immediate restarts within the window. Two are no loop yet: for example a worker that an operator
kills, or that the kernel kills again for lack of memory while its clients reconnect."""
CRASHES_FAST: Final = 4
"""Fast restarts within the window; further ones are delayed more and more."""
BACKOFF_FAST_S: Final = 0.1
"""Before the first delayed restart; doubled for each further one."""
BACKOFF_SLOW_S: Final = 1.0
BACKOFF_SERVED_MAX_S: Final = 2.0
"""For a child that served: its partitions are waiting. One fork every two seconds is harmless."""
BACKOFF_BOOT_S: Final = 0.5
BACKOFF_BOOT_MAX_S: Final = 30.0
"""For a child that never served: the problem needs a person."""
SPARE_AFTER_S: Final = 5.0
"""From the start of service, or from the use or the end of a spare process, to the next one: it
must not take CPU time from processes that are starting."""
KILL_MARGIN_S: Final = 1.0
"""Added to the time that clients were given, for the worker to close its files."""
QUICK_STOP_S: Final = 2.0


class Phase(Enum):
    """The phase of a child."""

    DOWN = "down"
    STARTING = "starting"
    READY = "ready"


@dataclass(slots=True)
class Child:
    """One slot for a process of a role."""

    role: Role
    index: int = 0
    phase: Phase = Phase.DOWN
    pid: int = 0
    """0 if there is none."""
    generation: int = 0
    """Of the process that runs, or ran last."""
    since_s: float = 0.0
    """When the phase began."""
    heartbeat_s: float = 0.0
    """The last heartbeat of its loop; 0 before the first."""
    start_at_s: float = 0.0
    """When it is down: not to be started before."""
    crashes: list[float] = field(default_factory=list)
    """Deaths within the window."""
    failed_boots: int = 0
    """Consecutive ones."""
    sent: int = 0
    """The strongest signal sent to it: 0, TERM, QUIT or KILL."""
    refused: bool = False
    """True if it has reported why it cannot start, and is about to end."""
    at_gate: bool = False
    """True if it has prepared everything, and waits for the previous server."""
    leave_by_s: float = 0.0
    """It was asked to leave, and is killed if it still exists then; 0: it was not asked."""
    replace: bool = False
    """True if it is to be replaced by a new process, when its turn comes."""
    surplus: bool = False
    """True if it is to leave permanently."""
    before: bool = False
    """True for a process of the previous server during a rolling upgrade. It is surplus."""
    yielded: bool = False
    """True if it does not accept connections now."""

    @property
    def name(self) -> str:
        """For people."""
        return self.role.title_of(self.index)

    @property
    def too_slow(self) -> str:
        """Why its start failed if it was killed because it took too long; empty: it was not."""
        limit_s = self.role.boot_timeout_s
        return f"it was not ready within {limit_s:.0f} s" if self.sent == signal.SIGKILL else ""

    @property
    def fields(self) -> dict[str, object]:
        """Its fields in a log line."""
        number: object = self.index if self.role.indexed else True
        return {"pid": self.pid, "generation": self.generation, self.role.name: number}


@dataclass(slots=True)
class State:
    """The input for all decisions."""

    roles: tuple[Role, ...]
    heartbeat_timeout_s: float
    age_max_s: float = 0.0
    """A worker process older than this is replaced; 0: never."""
    lent: bool = False
    """True while the next version controls the worker processes."""
    spare_wanted: bool = False
    """True if a spare process is to be kept."""
    spare_at_s: float = 0.0
    """When there is none: not to be started before."""
    spare_pid: int = 0
    """0 if there is none."""
    children: list[Child] = field(init=False)
    """Of all roles, in their order."""
    serving: bool = False
    """True once every child was ready: the start is complete."""
    stopping: int = 0
    """0, or the signal for stopping children: TERM, then QUIT."""
    kill_at_s: float = 0.0
    """When stopping: the remaining ones are killed then."""
    awake_s: float = 0.0
    """Since when the supervisor itself has run without interruption: earlier silence proves
    nothing."""

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
        child.leave_by_s, child.replace, child.at_gate, child.refused = 0.0, False, False, False

    def prepared(self, child: Child) -> None:
        """A child is prepared and waits: however long that takes, it does not count as hanging."""
        child.at_gate, child.since_s = True, math.inf

    def released(self, child: Child, now: float) -> None:
        """A child no longer waits."""
        child.at_gate, child.since_s = False, now

    @property
    def all_prepared(self) -> bool:
        """True if every child serves, or waits for the previous server."""
        return all(child.at_gate or child.phase is Phase.READY for child in self.children)

    def became_ready(self, child: Child, now: float) -> bool:
        """A child serves. Returns True if this completes the start of the server."""
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
        if left and not child.sent:  # as requested
            child.start_at_s = now
            return
        child.crashes = [when for when in child.crashes if now - when < CRASH_WINDOW_S]
        child.crashes.append(now)
        child.failed_boots = 0 if served else child.failed_boots + 1
        child.start_at_s = now + backoff_s(len(child.crashes), child.failed_boots, chance)

    def spare_used(self, now: float) -> None:
        """The spare process has taken a slot, or has ended."""
        self.spare_pid, self.spare_at_s = 0, now + SPARE_AFTER_S

    def interrupted(self, now: float, lost_s: float) -> None:
        """The supervisor did not run for this long; perhaps its children did not run either.

        Their silence until now proves nothing, and they still get the time that they were given.
        """
        self.awake_s = now
        self.kill_at_s += lost_s
        for child in self.children:
            if child.leave_by_s:
                child.leave_by_s += lost_s

    def leaves(self, child: Child, now: float, patience_s: float) -> None:
        """A process was asked to leave, within this time."""
        child.leave_by_s = now + patience_s + KILL_MARGIN_S
        child.replace = False

    def replace_all(self) -> int:
        """Replace the worker processes, one after the other. Returns how many."""
        chosen = [child for child in self.owners if not child.surplus]
        for child in chosen:
            child.replace = True
        return len(chosen)

    def resize(self, count: int) -> None:
        """Change the number of worker processes; at least one."""
        role = self.owners[0].role
        staying = [child for child in self.owners if not child.surplus]
        missing = count - len(staying)
        # A leaving process keeps its slot until it has ended; then a new one takes it.
        for child in [child for child in self.owners if child.surplus][: max(0, missing)]:
            child.surplus, child.replace = False, not child.leave_by_s
            missing -= 1
        for child in staying[count:]:
            child.surplus = True
            if not child.pid:
                self.children.remove(child)
        self._add_places(role, missing)

    def _add_places(self, role: Role, count: int) -> None:
        """Add slots, with the lowest free numbers."""
        taken = {child.index for child in self.of(role.name)}
        free = (number for number in itertools.count() if number not in taken)
        self.children += [Child(role, next(free)) for _ in range(count)]
        order = {role.name: number for number, role in enumerate(self.roles)}
        self.children.sort(key=lambda child: (order[child.role.name], child.index))

    def wait_to_lead(self) -> None:
        """Start no worker processes before ``lead``."""
        self.children = [child for child in self.children if not child.role.owns_partitions]

    def lead(self, before: Sequence[tuple[int, int, int]], now: float) -> None:
        """Control the previous server's processes from now on, given (slot, pid, generation).

        They continue until all of this server's own serve beside them, and then leave one by one.
        """
        role = next(role for role in self.roles if role.owns_partitions)
        self.children += [
            Child(role, index, Phase.READY, pid, generation, now, surplus=True, before=True)
            for index, pid, generation in before
        ]
        self._add_places(role, role.count)

    @property
    def before(self) -> list[Child]:
        """The previous server's processes that this one controls."""
        return [child for child in self.children if child.before]

    @property
    def owners(self) -> list[Child]:
        """The processes of the role that owns partitions."""
        return [child for child in self.children if child.role.owns_partitions]

    @property
    def staying(self) -> list[int]:
        """The numbers of those that may be given partitions."""
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
    """Return the delay of a restart, after this many deaths within the window.

    Exponential, and spread over half of its length so that slots do not restart in step.
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
