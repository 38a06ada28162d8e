"""What the supervisor does next, decided without doing it. Pure: time and chance are passed in.

``State`` is what is known of the children. The supervisor reports events to it (``started``,
``became_ready``, ``exited``, ``stop``), and calls ``plan`` for what to do and ``wake_at`` for when
to call it again.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from relay.server.supervisor.roles import Role

CRASH_WINDOW_S: Final = 30.0
CRASHES_FAST: Final = 4
"""Restarts within the window that are quick; from the next on they are slowed down for good."""
BACKOFF_FAST_S: Final = 0.1
"""Before the second restart; doubled for each one more. The first is immediate."""
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
        owners = self.owners
        role = owners[0].role
        for child in owners:
            if child.index >= count and not child.surplus:
                child.surplus = True
                if not child.pid:
                    self.children.remove(child)
        there = {child.index for child in self.owners}
        for index in range(count):
            if index not in there:
                self.children.append(Child(role, index))
        for child in self.owners:
            # One that is on its way out keeps its place until it is gone; a new one takes it then.
            if child.index < count and child.surplus:
                child.surplus, child.replace = False, not child.leave_by_s
        order = {role.name: number for number, role in enumerate(self.roles)}
        self.children.sort(key=lambda child: (order[child.role.name], child.index))

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


@dataclass(frozen=True, slots=True)
class Start:
    """Fork it."""

    child: Child


@dataclass(frozen=True, slots=True)
class Send:
    """Send it a signal."""

    child: Child
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Give what it owns to others, and ask it to leave."""

    child: Child


@dataclass(frozen=True, slots=True)
class StartSpare:
    """Fork a process that waits for a place."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left: the supervisor ends."""


Action = Start | Send | Leave | StartSpare | Finish


def backoff_s(crashes: int, failed_boots: int, chance: float) -> float:
    """Return how long a restart waits, after so many deaths within the window.

    Exponential, and spread over half of its length so that slots do not move in step.
    """
    if failed_boots:
        delay = min(BACKOFF_BOOT_MAX_S, BACKOFF_BOOT_S * 2.0 ** min(failed_boots - 1, 16))
    elif crashes <= 1:
        return 0.0
    elif crashes <= CRASHES_FAST:
        delay = BACKOFF_FAST_S * 2.0 ** (crashes - 2)
    else:
        slow = BACKOFF_SLOW_S * 2.0 ** min(crashes - CRASHES_FAST - 1, 16)
        delay = min(BACKOFF_SERVED_MAX_S, slow)
    return delay * (0.5 + chance / 2)


def plan(state: State, now: float) -> list[Action]:
    """Return what is to be done now. Asking twice without doing it gives the same."""
    if state.stopping:
        return _plan_stop(state, now)
    actions: list[Action] = []
    for child in state.children:
        if child.phase is Phase.DOWN:
            if now >= child.start_at_s and _may_start(state, child):
                actions.append(Start(child))
        elif now >= _silent_at(state, child) and child.sent != signal.SIGKILL:
            reason = "hung" if child.phase is Phase.READY else "not ready in time"
            actions.append(Send(child, signal.SIGKILL, reason))
        elif child.leave_by_s and now >= child.leave_by_s and not child.sent:
            actions.append(Send(child, signal.SIGKILL, "not left in time"))
    actions += [Leave(child) for child in _to_leave(state, now)]
    if _spare_due(state) and now >= state.spare_at_s:
        actions.append(StartSpare())
    return actions


def _spare_due(state: State) -> bool:
    return state.spare_wanted and state.serving and not state.spare_pid


def _to_leave(state: State, now: float) -> list[Child]:
    """Those that are too many, at once; of those to be replaced, one while all others serve."""
    owners = state.owners
    leaving = [c for c in owners if c.surplus and c.phase is Phase.READY and not c.leave_by_s]
    if not state.serving or any(c.phase is not Phase.READY or c.leave_by_s for c in owners):
        return leaving
    due = [child for child in owners if not child.surplus and _replace_at(state, child) <= now]
    return leaving or due[:1]


def _replace_at(state: State, child: Child) -> float:
    if child.replace:
        return 0.0
    return child.since_s + state.age_max_s if state.age_max_s else math.inf


def rebalanced(owner_of: list[int], staying: list[int]) -> list[int]:
    """Return who owns each partition, evenly, moving as few as can be.

    Args:
        owner_of: who owns each now; -1: nobody.
        staying: who may own any. If that is nobody, nothing changes.
    """
    if not staying:
        return owner_of
    least, more = divmod(len(owner_of), len(staying))
    counts = {index: owner_of.count(index) for index in staying}
    # The ones that have most keep the one more that some must have.
    ranked = sorted(staying, key=lambda index: (-counts[index], index))
    share = {index: least + (rank < more) for rank, index in enumerate(ranked)}
    found = list(owner_of)
    free = []
    for partition, owner in enumerate(owner_of):
        if share.get(owner):
            share[owner] -= 1
        else:
            free.append(partition)
    for index in staying:
        for _ in range(share[index]):
            found[free.pop(0)] = index
    return found


def wake_at(state: State, now: float) -> float:
    """Return when to plan again if nothing happens before. Called after a plan was carried out."""
    times = [now + state.heartbeat_timeout_s]
    for child in state.children:
        if state.stopping:
            if child.pid and child.sent != signal.SIGKILL:
                times.append(state.kill_at_s)
        elif child.phase is Phase.DOWN:
            if _may_start(state, child):
                times.append(child.start_at_s)
        elif child.sent != signal.SIGKILL:
            times.append(_silent_at(state, child))
            if child.leave_by_s:
                times.append(child.leave_by_s)
            elif child.role.owns_partitions and _replace_at(state, child) > now:
                times.append(_replace_at(state, child))  # if others are away, their return wakes
    if _spare_due(state) and not state.stopping:
        times.append(state.spare_at_s)
    return min(times)


def _may_start(state: State, child: Child) -> bool:
    return all(other.phase is Phase.READY for name in child.role.needs for other in state.of(name))


def _silent_at(state: State, child: Child) -> float:
    """When a child's silence is too long, as far as is known now."""
    if child.phase is Phase.STARTING:
        return max(child.since_s, state.awake_s) + child.role.boot_timeout_s
    return max(child.heartbeat_s, child.since_s, state.awake_s) + state.heartbeat_timeout_s


def _plan_stop(state: State, now: float) -> list[Action]:
    """The last role first: what a process needs is there until it has ended."""
    running: list[Child] = []
    for role in reversed(state.roles):
        running = [child for child in state.of(role.name) if child.pid]
        if running:
            break
    else:
        return [Finish()]
    # TERM < QUIT < KILL in strength; a child is sent each at most once.
    strength = [0, signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL]
    number = signal.SIGKILL if now >= state.kill_at_s else state.stopping
    reason = "not stopped in time" if number == signal.SIGKILL else "stop"
    return [
        Send(child, number, reason)
        for child in running
        if strength.index(child.sent) < strength.index(number)
    ]
