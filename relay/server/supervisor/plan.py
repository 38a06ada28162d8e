"""Decides what the supervisor does next. Pure: time and randomness are passed in.

``State`` describes the children. The supervisor reports events to it (``started``,
``became_ready``, ``exited``, ``stop``), calls ``plan`` for what to do, and ``wake_at`` for when to
call it again.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass
from typing import Final

from relay.server.supervisor.state import Child, Phase, State

YIELD_LOOK_S: Final = 0.1
"""Interval for checking whether the previous server's processes have stopped accepting."""


@dataclass(frozen=True, slots=True)
class Start:
    """Fork the child."""

    child: Child


@dataclass(frozen=True, slots=True)
class Send:
    """Send a signal to the child."""

    child: Child
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Assign the child's partitions to others, and ask it to leave."""

    child: Child


@dataclass(frozen=True, slots=True)
class StartSpare:
    """Fork a spare process."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left: the supervisor ends."""


Action = Start | Send | Leave | StartSpare | Finish


def plan(state: State, now: float) -> list[Action]:
    """Return what to do now. Idempotent until it is done."""
    if state.stopping:
        return _plan_stop(state, now)
    actions: list[Action] = []
    for child in state.children:
        if state.lent and child.role.owns_partitions:
            continue
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
    return state.spare_wanted and state.serving and not state.spare_pid and not state.lent


def _to_leave(state: State, now: float) -> list[Child]:
    """Return surplus children, and at most one to be replaced, if all others serve."""
    owners = state.owners
    if state.lent:
        return []
    if state.before:
        settled = all(c.before or c.phase is Phase.READY for c in owners)
        ready = settled and all(c.yielded and not c.leave_by_s for c in state.before)
        return state.before[:1] if ready else []
    leaving = [c for c in owners if c.surplus and c.phase is Phase.READY and not c.leave_by_s]
    if not state.serving or any(c.phase is not Phase.READY or c.leave_by_s for c in owners):
        return leaving
    due = [child for child in owners if not child.surplus and _replace_at(state, child) <= now]
    return leaving or due[:1]


def _replace_at(state: State, child: Child) -> float:
    if child.replace:
        return 0.0
    return child.since_s + state.age_max_s if state.age_max_s else math.inf


def wake_at(state: State, now: float) -> float:
    """Return when to plan again if nothing happens before. Called after a plan was carried out."""
    times = [now + state.heartbeat_timeout_s]
    if state.before and not state.stopping:
        times.append(now + YIELD_LOOK_S)
    for child in state.children:
        if state.lent and child.role.owns_partitions:
            continue
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
                # if others are away, their return causes a plan
                times.append(_replace_at(state, child))
    if _spare_due(state) and not state.stopping:
        times.append(state.spare_at_s)
    return min(times)


def _may_start(state: State, child: Child) -> bool:
    return all(other.phase is Phase.READY for name in child.role.needs for other in state.of(name))


def _silent_at(state: State, child: Child) -> float:
    """Return when a child's silence becomes too long, as known now."""
    if child.phase is Phase.STARTING:
        return max(child.since_s, state.awake_s) + child.role.boot_timeout_s
    return max(child.heartbeat_s, child.since_s, state.awake_s) + state.heartbeat_timeout_s


def _plan_stop(state: State, now: float) -> list[Action]:
    """Stop the last role first: what a process needs exists until it has ended."""
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
