"""Starting the server: everything that is done before the first fork, in order."""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import setproctitle

from relay.chat.partition import PARTITIONS
from relay.server import logs
from relay.server.context import AGENT_SOCKET, AgentContext, WorkerContext
from relay.server.metrics import WORKER
from relay.server.supervisor import listener, runtime_directory
from relay.server.supervisor.roles import Launch, Role
from relay.server.supervisor.supervisor import Supervisor, SupervisorConfig
from relay.settings import WORKERS_MAX, Settings
from relay.store.directory import DataDirectory

KEY_FILE: Final = "server.key"
AGENT: Final = "agent"
AGENT_BOOT_TIMEOUT_S: Final = 120.0
"""The first start generates the key; 8192 bits take up to a minute."""
WORKER_BOOT_TIMEOUT_S: Final = 30.0
WORKER_FAILED: Final = 3
"""Exit code when a worker cannot boot (gunicorn's)."""
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


def start(settings: Settings, announce: Callable[[list[str]], None]) -> int:
    """Run the server until it is asked to stop. Returns the exit code.

    ``announce`` is called once, when every worker serves, with the addresses as clients write them.

    Raises:
        UsageError, StartError: it cannot run; the message says what to do.
    """
    logs.set_up(settings.log)
    setproctitle.setproctitle("relay: supervisor")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file holds keys and messages
    os.umask(0o077)  # and SQLite's files hold messages: an old directory may be open to others

    # 1. The data directory first: whoever holds its lock may clean up after a dead run.
    directory = DataDirectory(Path(settings.store.data).expanduser().absolute())
    lock = directory.lock()

    # 2. Sockets. The port is bound here, so that it survives every worker.
    runtime = runtime_directory.prepare(settings.server.runtime, directory.path)
    listeners = listener.bind_all(settings.server.bind)

    # 3. The values that 0 in a setting stands for.
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
        SupervisorConfig(
            roles=_roles(settings, listeners, directory.path, runtime),
            listeners=listeners,
            partitions=PARTITIONS,
            heartbeat_timeout_s=settings.server.worker_timeout_s,
            graceful_timeout_s=settings.server.graceful_timeout_s,
            on_serving=lambda texts: announce(_addresses(texts[AGENT], listeners)),
            close_in_child=lock.close,
        )
    )
    code = supervisor.run()
    runtime_directory.clean_up(runtime)
    return code


def _roles(
    settings: Settings, listeners: tuple[socket.socket, ...], data: Path, runtime: Path
) -> tuple[Role, ...]:
    """Return the table of processes that a server consists of."""
    boot_id = _BOOT_ID.read_text(encoding="ascii").strip()

    def run_agent(launch: Launch) -> int:
        return _agent_main(
            AgentContext(
                settings=settings,
                socket_path=runtime / AGENT_SOCKET,
                key_path=data / KEY_FILE,
                scoreboard=launch.scoreboard,
                expected_fingerprint=launch.text,
                parent_fd=launch.parent_fd,
                ready_fd=launch.ready_fd,
            )
        )

    def run_worker(launch: Launch) -> int:
        return _worker_main(
            WorkerContext(
                index=launch.index,
                generation=launch.generation,
                settings=settings,
                listeners=listeners,
                scoreboard=launch.scoreboard,
                runtime=runtime,
                data=data,
                boot_id=boot_id,
                parent_fd=launch.parent_fd,
                ready_fd=launch.ready_fd,
            )
        )

    return (
        Role(
            name=AGENT,
            title="key agent",
            run=run_agent,
            boot_timeout_s=AGENT_BOOT_TIMEOUT_S,
            boot_failure_code=1,
        ),
        Role(
            name="worker",
            title="worker {index}",
            run=run_worker,
            boot_timeout_s=WORKER_BOOT_TIMEOUT_S,
            boot_failure_code=WORKER_FAILED,
            count=settings.server.workers,
            indexed=True,
            needs=(AGENT,),
            accepts_clients=True,
            owns_partitions=True,
            metrics=WORKER,
        ),
    )


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
