"""The external dependencies of a worker's parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from relay.limit_settings import Limits
from relay.server.worker.connection.announcement import ProvesNextKey
from relay.server.worker.connection.commands import OPERATIONS
from relay.server.worker.connection.services import (
    LOGIN_S,
    OVERLOADED_RETRY_S,
    Searching,
    Unwrap,
)
from relay.server.worker.home.room_rules import RoomRules
from relay.server.worker.member.routes import Owner
from relay.wire.timing import DEFAULT_TIMING, Timing

if TYPE_CHECKING:
    import asyncio

    from relay.chat.accounts.decide import Registration
    from relay.server.agent.protocol import Identity
    from relay.server.worker.connection.session import Operations
    from relay.store.generation import Durability
    from relay.store.log import Partition, Reader
    from relay.wire.tickets import TicketKeys


class KeyAgent(Unwrap, ProvesNextKey, Protocol):
    """What workers ask the key agent for."""


class Loop(Protocol):
    """The part of an event loop that a worker's parts need."""

    def call_soon(self, callback: Callable[[], None]) -> object:
        """Run in the next iteration."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """Run after so many seconds."""


@dataclass(frozen=True, slots=True)
class WorkerDependencies:
    """What a worker's parts get from outside: its place, its clocks, its stores, the key agent."""

    index: int
    generation: int
    loop: Loop
    agent: KeyAgent
    identity: Identity
    agent_name: str
    owner_of: Callable[[int], Owner]
    silent: Callable[[set[int]], bool]
    """Given the generations that have announced themselves: has a live worker not?"""
    open_partition: Callable[[int], Partition]
    reader_of: Callable[[str], Reader]
    reader_at: Callable[[int], Reader]
    rules: RoomRules
    """Those that the partitions of ``open_partition`` keep to."""
    run_in_thread: Callable[[Callable[[], Any]], asyncio.Future[Any]]
    """Where commits run that wait for the disk."""
    durability: Durability = "process"
    rooms_begin: bool = True
    """The first message of a room brings an entry of its own before it."""
    tickets: TicketKeys | None = None
    """What opens and seals tickets; None: there are none."""
    registration: Registration = "open"
    guests: bool = False
    first_invitation: bytes = b""
    """The hash of the invitation in the data directory that makes the first operator."""
    on_invitation_end: Callable[[str], None] | None = None
    """Told the log of each invitation that is used up."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds, moving within a turn (uvloop's own ``time`` has whole ms)."""
    cpu_clock: Callable[[], float] = time.thread_time
    """Seconds for which the worker's loop has had the processor."""
    timing: Timing = DEFAULT_TIMING
    slow_reader_timeout_s: float = 60.0
    connections_max: int = 1000
    """Slots for connections that are logged in."""
    login_s: float = LOGIN_S
    overloaded_retry_s: int = OVERLOADED_RETRY_S
    limits: Limits = field(default_factory=Limits)
    observe_commit_ns: Callable[[int], None] = lambda _: None
    """Told how long each group commit took."""
    operations: Operations = field(default_factory=lambda: OPERATIONS)
    searching: Searching | None = None
    """What finds messages by their words."""
