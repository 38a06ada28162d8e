"""Applies changed settings to a running worker and its open connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from relay.server import logs
from relay.server.worker.connection.stages import Stage

if TYPE_CHECKING:
    from relay.server.worker.process.parts import WorkerParts
    from relay.server.worker.process.storage.disk_reserve import DiskReserve
    from relay.settings import Settings

SESSIONS_PER_SLICE: Final = 100


async def reconfigure(parts: WorkerParts, disk_reserve: DiskReserve, settings: Settings) -> None:
    """Apply the settings that may change; to connections in slices, yielding to the loop."""
    logs.set_level(settings.log)
    parts.stalled.timeout_s = settings.server.slow_reader_timeout_s
    parts.home.rules.anyone_creates = settings.rooms.create == "anyone"
    limits, budgets = settings.limits, parts.services.budgets
    disk_reserve.keep(limits.disk_reserve_mib << 20)
    parts.home.accounts.logs.inbox_entries_max = limits.inbox_messages
    if limits == budgets.limits:
        return
    budgets.rebound(limits)
    for number, session in enumerate(list(parts.connections.sessions), 1):
        if session.stage is not Stage.LOST:
            session.rebound()
        if number % SESSIONS_PER_SLICE == 0:
            await asyncio.sleep(0)
