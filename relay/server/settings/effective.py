"""The settings in effect: those that were given, with what their placeholders stand for.

0 workers are as many as there are CPUs, 0 connections as many as the system permits, and an empty
runtime directory is in the data directory or, if its path would be too long, elsewhere.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from relay.errors import StartError
from relay.server.system import inherited
from relay.settings import WORKERS_MAX, Settings

FILES_RESERVED: Final = 296
"""File descriptors of a worker for purposes other than clients, listeners and links to other
workers: at most 10 for each of its 16 partitions (database, WAL and shared memory, for the writer
and for the readers; lock), 5 for the index of each, 24 for searches, and 32 for the loop, the key
agent and the streams."""
GUESTS_MIN: Final = 16
"""Slots of a worker for connections that are not logged in, however few descriptors there are."""
CONNECTIONS_EXPECTED: Final = 1000
"""A limit that leaves a worker fewer is reported, because it is probably unintended."""
CONNECTIONS_DERIVED_MAX: Final = 100_000
"""Per worker, if the system sets no lower limit: memory is exhausted before descriptors are."""
log = logging.getLogger("relay.supervisor")


def effective(settings: Settings, data: Path, runtime: Path) -> Settings:
    """Return the settings in effect.

    Args:
        settings: as they were given.
        data: the full path of the data directory.
        runtime: that of the runtime directory.

    Raises:
        StartError: the limit on open files leaves no connections.
    """
    server, workers = settings.server, _workers(settings)
    files, reserved = inherited.raise_open_files_limit(), _reserved(settings, workers)
    guests = min(settings.limits.unauthenticated, max(GUESTS_MIN, (files - reserved) // 8))
    connections = _connections_max(server.max_connections, files, reserved + guests)
    return msgspec.structs.replace(
        settings,
        server=msgspec.structs.replace(
            server, workers=workers, max_connections=connections, runtime=str(runtime)
        ),
        store=msgspec.structs.replace(settings.store, data=str(data)),
        limits=msgspec.structs.replace(
            settings.limits, unauthenticated=min(guests, max(GUESTS_MIN, connections))
        ),
    )


def check_open_files(settings: Settings, workers: int = 0) -> None:
    """Check it before anything is opened, which would fail for another reason.

    ``workers``: 0: as in the settings.

    Raises:
        StartError: the limit on open files leaves no connections.
    """
    guests = min(settings.limits.unauthenticated, GUESTS_MIN)
    reserved = _reserved(settings, workers or _workers(settings))
    _connections_possible(inherited.raise_open_files_limit(), reserved + guests)


def _workers(settings: Settings) -> int:
    return settings.server.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX)


def _reserved(settings: Settings, workers: int) -> int:
    """Return how many descriptors of each of so many workers are not for connections."""
    # In an upgrade there are twice as many workers, each with a link to every other one.
    return FILES_RESERVED + 2 * workers + len(settings.server.bind)


def _connections_possible(limit: int, reserved: int) -> int:
    """Return how many connections a limit on open files leaves. Raises StartError: none."""
    if limit <= reserved:
        raise StartError(
            f"the limit on open files is {limit}: {_needs(reserved)}; "
            "raise it (ulimit -Hn, LimitNOFILE)"
        )
    return limit - reserved


def _needs(reserved: int) -> str:
    return f"a worker needs {reserved} open files and one for each connection"


def _connections_max(wanted: int, limit: int, reserved: int) -> int:
    """Return the maximum number of connections of a worker: as configured, or 0: as limits allow.

    Raises:
        StartError: the limit on open files leaves none.
    """
    possible = _connections_possible(limit, reserved)
    least = wanted or CONNECTIONS_EXPECTED
    if possible < least:
        log.warning(
            "open_files_limit_low",
            extra={
                "has": limit,
                "needs": reserved + least,
                "reserved": reserved,
                "connections_wanted": least,
                "connections_possible": possible,
                "reason": f"{_needs(reserved)}; raise it (ulimit -Hn, LimitNOFILE)",
            },
        )
    return min(wanted or CONNECTIONS_DERIVED_MAX, possible)


def absolute(setting: str, text: str) -> Path:
    """Return a path that does not depend on the current directory.

    Raises:
        StartError: it is relative, and the current directory has been removed; or it begins with a
            ~ that cannot be expanded.
    """
    try:
        return Path(text).expanduser().absolute()
    except FileNotFoundError:
        raise StartError(
            f"{setting} {text}: the current directory no longer exists; give a full path"
        ) from None
    except RuntimeError:
        raise StartError(f"{setting} {text}: no home directory is known for ~") from None
