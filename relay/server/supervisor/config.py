"""The configuration of a supervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.server.supervisor.roles import Role
from relay.server.supervisor.service_manager import ServiceManager
from relay.server.supervisor.takeover import Takeover
from relay.server.supervisor.upgrade import Program


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """What the supervisor works with: made before it starts, the same for all its life."""

    roles: tuple[Role, ...]
    """In the order of start."""
    partitions: int
    heartbeat_timeout_s: Callable[[], float]
    """A child whose heartbeat is older is killed and replaced."""
    graceful_timeout_s: Callable[[], float]
    age_max_s: Callable[[], float]
    """A process that owns partitions and is older is replaced; 0: never."""
    spare: bool
    """Keep a process of the role with a ``prepare`` ready for the place of one that dies."""
    hasten: Callable[[], None]
    """Called before a stop by INT: makes it a quicker one."""
    reload: Callable[[], object]
    """Reads the settings again; logs what came of it. It may raise RelayError."""
    requests: Mapping[str, Callable[[Mapping[str, Any]], object]]
    """What the role that ``asks`` may ask for, by name, and what does it: with the question, which
    is all that was sent. It may raise RelayError, which is the answer then."""
    manager: ServiceManager
    on_serving: Callable[[dict[str, str]], None]
    """Called once, when every child is ready, with the text that each role's first child sent."""
    close_in_child: Callable[[], None]
    """Closes what children must not hold, such as the lock of the data directory."""
    key_role: str = ""
    """Whose text is the fingerprint of the server's key."""
    version: str = ""
    program: Program | None = None
    """What another version is started by. None: it cannot be upgraded."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """Of what the processes that own partitions have in common, by name: another version whose own
    are the same replaces them one by one."""
    takeover: Takeover | None = None
    """From the server before. None: there was none."""
    on_alone: Callable[[], None] = lambda: None
    """Called when nothing is left of the server before. It may raise StartError."""
