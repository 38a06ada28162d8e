"""The external dependencies of a worker's parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from relay.limit_settings import Limits
from relay.server.worker.connection.announcement import ProvesNextKey
from relay.server.worker.connection.requests.commands import OPERATIONS
from relay.server.worker.connection.services import (
    LOGIN_S,
    OVERLOADED_RETRY_S,
    Searching,
    Unwrap,
)
from relay.server.worker.home.rooms.rules import RoomRules
from relay.server.worker.member.routes import Owner
from relay.wire.timing import DEFAULT_TIMING, Timing

if TYPE_CHECKING:
    import asyncio

    from relay.chat.accounts.decide import Registration
    from relay.server.agent.protocol import Identity
    from relay.server.scoreboard import Erasures
    from relay.server.worker.connection.session import Operations
    from relay.store.file.generation import Durability
    from relay.store.log import Partition, Reader
    from relay.wire.tickets import TicketKeys


class KeyAgent(Unwrap, ProvesNextKey, Protocol):
    """The key agent's services for workers."""


class Loop(Protocol):
    """The part of an event loop that a worker's parts use."""

    def call_soon(self, callback: Callable[[], None]) -> object:
        """Call in the next iteration."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Call after a number of seconds."""


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """What a worker's parts get from outside: position, clocks, stores, the key agent."""

    index: int
    generation: int
    loop: Loop
    agent: KeyAgent
    identity: Identity
    agent_name: str
    owner_of: Callable[[int], Owner]
    erased: Callable[[int], None]
    """Called with a partition of this home after an erasure, before that is acknowledged."""
    erasures: Callable[[int], Erasures]
    owns: Callable[[int], bool]
    """Whether this worker is the home of a partition now."""
    silent: Callable[[set[int]], bool]
    """Given the generations that have reported, returns True if a live worker has not."""
    open_partition: Callable[[int], Partition]
    reader_of: Callable[[str], Reader]
    reader_at: Callable[[int], Reader]
    rules: RoomRules
    """The rules enforced by the partitions of ``open_partition``."""
    run_in_thread: Callable[[Callable[[], Any]], asyncio.Future[Any]]
    """Runs commits that wait for the disk."""
    durability: Durability = "process"
    tickets: TicketKeys | None = None
    """Seals and opens tickets; None: there are none."""
    registration: Registration = "open"
    guests: bool = False
    first_invitation: bytes = b""
    """Hash of the invitation in the data directory that creates the first operator."""
    on_invitation_end: Callable[[str], None] | None = None
    """Called with the log of each invitation that is used up."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds that advance within a turn (uvloop's own ``time`` has whole milliseconds).
    """
    cpu_clock: Callable[[], float] = time.thread_time
    """CPU time of the worker's loop in seconds."""
    nobody_waits: Callable[[], bool] = lambda: False
    """Returns True if no process waits for a CPU now; False as well if that is unknown."""
    timing: Timing = DEFAULT_TIMING
    slow_reader_timeout_s: float = 60.0
    connections_max: int = 1000
    """Slots for connections that are logged in."""
    login_s: float = LOGIN_S
    overloaded_retry_s: int = OVERLOADED_RETRY_S
    limits: Limits = field(default_factory=Limits)
    observe_commit_ns: Callable[[int], None] = lambda _: None
    """Called with the duration of each group commit."""
    operations: Operations = field(default_factory=lambda: OPERATIONS)
    searching: Searching | None = None
    """Finds messages by their words."""
