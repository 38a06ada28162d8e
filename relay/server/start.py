"""Starting the server: everything that is done before the first fork, in order."""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import setproctitle

from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.server import logs, recovery
from relay.server.supervisor import listener, runtime_directory
from relay.server.supervisor.supervisor import Plant, Supervisor
from relay.settings import WORKERS_MAX, Settings
from relay.store.directory import DataDirectory

if TYPE_CHECKING:
    from relay.server.context import AgentContext, WorkerContext

KEY_FILE: Final = "server.key"
FILES_RESERVED: Final = 512
"""File descriptors of a worker that are not clients: partitions, the bus, the listeners."""
CONNECTIONS_DERIVED_MAX: Final = 100_000
"""Per worker, where the system sets no lower limit: memory ends before descriptors do."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
log = logging.getLogger("relay.supervisor")


def check(settings: Settings) -> None:
    """Raise UsageError for a mistake that the settings' types do not catch."""
    for bind in settings.server.bind:
        listener.parse_bind(bind)


def start(
    settings: Settings, announce: Callable[[list[str]], None], *, new_identity: bool = False
) -> int:
    """Run the server until it is told to stop. Returns the exit code.

    Args:
        settings: of the server.
        announce: called once, when every worker serves, with the addresses as clients write them.
        new_identity: make a key though there are messages, for a key that is lost.

    Raises:
        UsageError, StartError: it cannot run; the message says what to do.
    """
    logs.set_up(settings.log)
    setproctitle.setproctitle("relay: supervisor")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file holds keys and messages
    os.umask(0o077)  # and SQLite's files hold messages: an old directory may be open to others

    # 1. The data directory first: who holds its lock may clean up behind a dead run.
    directory = DataDirectory(Path(settings.store.data).expanduser().absolute())
    lock = directory.lock()
    _check_identity(directory, new_identity)

    boot_id = _boot_id()
    recovery.recover(directory, boot_id, settings.store.durability, lock.close)

    # 2. Sockets. The port is bound here, so that it survives every worker.
    runtime = runtime_directory.prepare(settings.server.runtime, directory.path)
    listeners = listener.bind_all(settings.server.bind)

    # 3. What a 0 stands for.
    settings = _resolve(settings, directory.path, runtime)
    log.info(
        "starting",
        extra={
            "pid": os.getpid(),
            "bind": [listener.format_address(sock) for sock in listeners],
            "workers": settings.server.workers,
            "data": str(directory.path),
            "max_connections": settings.server.max_connections,
        },
    )

    # 4. Children share what is in memory now; the collector must not write to it.
    gc.collect()
    gc.freeze()
    supervisor = Supervisor(
        Plant(
            settings=settings,
            listeners=listeners,
            data=directory.path,
            runtime=runtime,
            key_path=directory.path / KEY_FILE,
            boot_id=boot_id,
            partitions=PARTITIONS,
            worker_main=_worker_main,
            agent_main=_agent_main,
            announce=lambda fingerprint: announce(_addresses(fingerprint, listeners)),
            close_in_child=lock.close,
        )
    )
    code = supervisor.run()
    runtime_directory.clean_up(runtime)
    return code


def _check_identity(directory: DataDirectory, new_identity: bool) -> None:
    """Raise StartError if a key would be made that nobody asked for."""
    path = directory.path / KEY_FILE
    there = os.path.lexists(path)
    if new_identity and there:
        raise StartError(
            f"--new-identity: {path} exists; move it away first, or start without the flag"
        )
    if not there and directory.holds_messages and not new_identity:
        raise StartError(
            f"data directory {directory.path} holds messages, but its key {KEY_FILE} is missing: "
            "restore it from a backup; if it is lost, start once with --new-identity, and every "
            "client will have to accept the new key"
        )


def _boot_id() -> str:
    """Return what tells one start of the kernel from the next; nothing where it is hidden."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII"
        log.warning("boot_id_unknown", extra={"path": str(_BOOT_ID), "reason": reason})
        return ""


def _worker_main(context: WorkerContext) -> int:
    """Import the worker in the child: the supervisor must not load what it needs."""
    from relay.server.worker.main import worker_main

    return worker_main(context)


def _agent_main(context: AgentContext) -> int:
    from relay.server.agent.main import agent_main

    return agent_main(context)


def _resolve(settings: Settings, data: Path, runtime: Path) -> Settings:
    server = settings.server
    files = _raise_file_limit()
    derived = max(1, min(CONNECTIONS_DERIVED_MAX, files - FILES_RESERVED))
    if server.max_connections > derived:
        log.warning("max_connections_above_file_limit", extra={"files": files})
    cores = len(os.sched_getaffinity(0))
    return Settings(
        server=msgspec.structs.replace(
            server,
            workers=server.workers or min(cores, WORKERS_MAX),
            max_connections=server.max_connections or derived,
            runtime=str(runtime),
        ),
        store=msgspec.structs.replace(settings.store, data=str(data)),
        log=settings.log,
    )


def _raise_file_limit() -> int:
    """Raise the soft limit on open files to the hard one; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _addresses(fingerprint: str, listeners: tuple[socket.socket, ...]) -> list[str]:
    return [f"relay://{fingerprint}@{listener.format_address(sock)}" for sock in listeners]
