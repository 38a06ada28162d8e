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
    """The parameters of a supervisor: fixed for its lifetime."""

    roles: tuple[Role, ...]
    """In the order of start."""
    partitions: int
    heartbeat_timeout_s: Callable[[], float]
    """A child with an older heartbeat is killed and replaced."""
    graceful_timeout_s: Callable[[], float]
    age_max_s: Callable[[], float]
    """A worker process older than this is replaced; 0: never."""
    spare: bool
    """True: keep a spare process of the role with a ``load_ahead``, to replace one that dies."""
    expedite_stop: Callable[[], None]
    """Called before a stop by INT: makes it faster."""
    reload: Callable[[], object]
    """Reads the settings again; logs the result. It may raise RelayError."""
    requests: Mapping[str, Callable[[Mapping[str, Any]], object]]
    """The requests of the role that ``asks``, by name, with their functions. A function gets the
    whole request, and may raise RelayError, which is then the answer."""
    manager: ServiceManager
    on_serving: Callable[[dict[str, str]], None]
    """Called once, when every child is ready, with the text sent by each role's first child."""
    close_in_child: Callable[[], None]
    """Closes what children must not hold, such as the lock of the data directory."""
    key_role: str = ""
    """The role whose text is the fingerprint of the server's key."""
    version: str = ""
    program: Program | None = None
    """Starts another version. None: an upgrade is not possible."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """Formats of the data that worker processes share, by name: a version with equal ones can
    replace them one by one."""
    takeover: Takeover | None = None
    """From the previous server. None: there was none."""
    check_count: Callable[[int], None] = lambda _: None
    """Raises StartError if the number of processes that own partitions cannot become this."""
    on_alone: Callable[[], None] = lambda: None
    """Called when nothing is left of the previous server. It may raise StartError."""
