"""Starting the server: everything that is done before the first fork, in order."""

from __future__ import annotations

import gc
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import setproctitle

from relay import __version__, compiled
from relay.chat.partition import PARTITIONS
from relay.errors import StartError
from relay.server import inherited, landlock, logs, privileges, recovery, registration
from relay.server.boot_id import boot_id as current_boot_id
from relay.server.context import (
    AGENT,
    AGENT_SOCKET,
    CONTROL,
    WORKER,
    AgentContext,
    ControlContext,
    WorkerContext,
)
from relay.server.key_files import KEY_FILE, KEY_FILES, NEXT_KEY_FILE
from relay.server.live_settings import LiveSettings
from relay.server.metrics import AGENT as AGENT_METRICS
from relay.server.metrics import WORKER as WORKER_METRICS
from relay.server.passphrase import PassphraseSource
from relay.server.prctl import forbid_inspection, no_new_privileges
from relay.server.privileges import Separation
from relay.server.registration import RegistrationRecord
from relay.server.steering import Steering
from relay.server.supervisor import listener, runtime_directory
from relay.server.supervisor.roles import Launch, Role
from relay.server.supervisor.runtime_directory import RuntimeDirectory
from relay.server.supervisor.service_manager import ServiceManager, given_sockets
from relay.server.supervisor.supervisor import Supervisor, SupervisorConfig
from relay.server.ticket_register import TicketRegister
from relay.settings import WORKERS_MAX, Settings
from relay.store.directory import DataDirectory

AGENT_BOOT_TIMEOUT_S: Final = 120.0
"""The first start generates the key; 8192 bits take up to a minute."""
CONTROL_BOOT_TIMEOUT_S: Final = 30.0
WORKER_BOOT_TIMEOUT_S: Final = 30.0
WORKER_FAILED: Final = 3
"""Exit code when a worker cannot boot (gunicorn's)."""
FILES_RESERVED: Final = 192
"""Of a worker, for what is neither a client, a listener nor a link to another worker: 10 for each
of its 16 partitions at most (database, WAL, shared memory, for the writer and for the readers;
lock), and 32 for the loop, the key agent and the streams."""
GUESTS_MIN: Final = 16
"""Slots of a worker for connections that are not logged in, however few descriptors there are."""
CONNECTIONS_EXPECTED: Final = 1000
"""A limit that leaves a worker fewer is reported, for probably nobody meant it."""
CONNECTIONS_DERIVED_MAX: Final = 100_000
"""Per worker, where the system sets no lower limit: memory ends before descriptors do."""
Announce: TypeAlias = Callable[[list[str], Path | None, str], None]
"""Called with the addresses as clients write them, the file with the first invitation (None: it was
used), and who may register."""
log = logging.getLogger("relay.supervisor")


def start(
    settings: Settings,
    announce: Announce,
    load: Callable[[], Settings],
    *,
    new_identity: bool = False,
) -> int:
    """Run the server until it is asked to stop. Returns the exit code.

    Args:
        settings: of the server.
        announce: called once, when every worker serves.
        load: reads the settings again, for a reload; raises UsageError.
        new_identity: make a key though there are messages, for a key that is lost.

    Raises:
        UsageError, StartError: it cannot run; the message says what to do.
    """
    inherited.reset()
    logs.set_up(settings.log)
    with logs.stderr_to_log():
        return _start(settings, announce, load, new_identity)


def _start(
    wanted: Settings,
    announce: Announce,
    load: Callable[[], Settings],
    new_identity: bool,
) -> int:
    settings = wanted
    setproctitle.setproctitle("relay: supervisor")
    if settings.server.sandbox:
        forbid_inspection()  # it has open what the key agent needs
    manager = ServiceManager.of(os.environ)
    given = given_sockets(os.environ)

    # 1. The data directory first: whoever holds its lock may clean up after a dead run.
    separation = privileges.resolve(settings.server.user, settings.server.agent_user)
    path = _absolute("store.data", settings.store.data)
    separation.prepare(path)
    with separation.lowered():
        directory = DataDirectory(path)
        lock = directory.lock()
    passphrase = PassphraseSource(settings.server.key_passphrase)
    listeners: tuple[socket.socket, ...] = ()
    control: socket.socket | None = None
    runtime: RuntimeDirectory | None = None
    try:
        boot_id = current_boot_id()
        with separation.lowered():
            _check_identity(directory, new_identity)
            record = registration.prepare(directory.path, settings.accounts)
            recovery.recover(directory, boot_id, settings.store.durability, lock.close)
            runtime = runtime_directory.prepare(_runtime(settings), directory.path)

        # 2. Sockets. The port is bound here, so that it survives every worker.
        listeners = given.clients or listener.bind_all(settings.server.bind)
        with separation.lowered():
            control = given.control or listener.bind_control(settings.control.bind)

        # 3. The values that 0 in a setting stands for.
        settings = _resolve(settings, directory.path, runtime.path)
        log.info(
            "starting",
            extra={
                "version": __version__,
                "build": compiled.build(),
                "pid": os.getpid(),
                "bind": [listener.format_bound(sock) for sock in listeners],
                "control": "off" if control is None else listener.format_bound(control),
                "workers": settings.server.workers,
                "data": str(directory.path),
                "max_connections": settings.server.max_connections,
            },
        )

        # 4. Children share what is in memory now; the collector must not write to it.
        gc.collect()
        gc.freeze()
        live = LiveSettings(settings)
        paths = directory.path, runtime.path
        steering = Steering(wanted, live, load, lambda wanted: _resolve(wanted, *paths))
        supervisor = Supervisor(
            SupervisorConfig(
                roles=_roles(
                    live,
                    listeners,
                    control,
                    directory.path,
                    runtime.path,
                    boot_id,
                    record,
                    passphrase,
                    separation,
                    new_identity,
                ),
                requests=steering.requests,
                reload=steering.reload,
                partitions=PARTITIONS,
                heartbeat_timeout_s=lambda: live.current.server.worker_timeout_s,
                graceful_timeout_s=lambda: steering.stop_timeout_s,
                age_max_s=lambda: live.current.server.max_worker_age_s,
                spare=live.current.server.spare_worker,
                hasten=steering.hasten,
                manager=manager,
                on_serving=lambda texts: announce(
                    _addresses(texts[AGENT], listeners),
                    record.invitation_path if record.waits_for_operator else None,
                    record.mode,
                ),
                close_in_child=_close_all(lock.close, runtime.close),
            )
        )
        return supervisor.run()
    finally:
        if runtime is not None:
            with separation.lowered():
                runtime.clean_up()
            runtime.close()
        for sock in listeners:
            listener.close(sock, kept=sock in given.clients)
        if control is not None:
            with separation.lowered():
                listener.close(control, kept=control is given.control)
        lock.close()


def _close_all(*closes: Callable[[], None]) -> Callable[[], None]:
    def close() -> None:
        for one in closes:
            one()

    return close


def _runtime(settings: Settings) -> str:
    wanted = settings.server.runtime
    return str(_absolute("server.runtime", wanted)) if wanted else ""


def _absolute(setting: str, text: str) -> Path:
    """Return a path that means the same whatever becomes of the current directory.

    Raises:
        StartError: it is relative, and the current directory has been removed; or it begins with a
            ~ that stands for nothing.
    """
    try:
        return Path(text).expanduser().absolute()
    except FileNotFoundError:
        raise StartError(
            f"{setting} {text}: the current directory does not exist any more; give a full path"
        ) from None
    except RuntimeError:
        raise StartError(f"{setting} {text}: no home directory is known for ~") from None


def _roles(
    live: LiveSettings,
    listeners: tuple[socket.socket, ...],
    control: socket.socket | None,
    data: Path,
    runtime: Path,
    boot_id: str,
    record: RegistrationRecord,
    passphrase: PassphraseSource,
    separation: Separation,
    new_identity: bool,
) -> tuple[Role, ...]:
    """Return the table of processes that a server consists of."""
    tickets = TicketRegister()

    def run_agent(launch: Launch) -> int:
        return _agent_main(
            AgentContext(
                live=live,
                socket_path=runtime / AGENT_SOCKET,
                key_path=data / KEY_FILE,
                scoreboard=launch.scoreboard,
                tickets=tickets,
                passphrase=passphrase,
                separation=separation,
                new_identity=new_identity,
                expected_fingerprint=launch.text,
                parent_fd=launch.parent_fd,
                ready_fd=launch.ready_fd,
            )
        )

    def prepare_worker() -> None:
        passphrase.close()
        _confine(separation, live, [data / name for name in KEY_FILES], passphrase)
        import relay.server.worker.process.main  # noqa: F401

    def run_worker(launch: Launch) -> int:
        if live.changed() is not None:  # since the spare process was forked
            logs.set_level(live.current.log)
        return _worker_main(
            WorkerContext(
                index=launch.index,
                generation=launch.generation,
                live=live,
                listeners=listeners,
                scoreboard=launch.scoreboard,
                tickets=tickets,
                runtime=runtime,
                data=data,
                registration=record.mode,
                invitation_path=record.invitation_path,
                boot_id=boot_id,
                parent_fd=launch.parent_fd,
                ready_fd=launch.ready_fd,
                agent_uid=None if separation.agent is None else separation.agent.uid,
            )
        )

    def run_control(launch: Launch) -> int:
        tickets.close()
        passphrase.close()
        _confine(separation, live, [], passphrase)
        return _control_main(
            ControlContext(
                live=live,
                boards=launch.boards,
                scoreboard=launch.scoreboard,
                listener=control,
                supervisor=socket.socket(fileno=launch.line_fd),
                data=data,
                runtime=runtime,
                parent_fd=launch.parent_fd,
                ready_fd=launch.ready_fd,
            )
        )

    return (
        # The first in the table is the last to stop: it tells of the others until they are gone.
        Role(
            name=CONTROL,
            title="control",
            run=run_control,
            boot_timeout_s=CONTROL_BOOT_TIMEOUT_S,
            boot_failure_code=1,
            listeners=() if control is None else (control,),
            asks=True,
        ),
        Role(
            name=AGENT,
            title="key agent",
            run=run_agent,
            boot_timeout_s=AGENT_BOOT_TIMEOUT_S,
            boot_failure_code=1,
            metrics=AGENT_METRICS,
            outdated=_Changed(data / NEXT_KEY_FILE),
        ),
        Role(
            name=WORKER,
            title="worker {index}",
            run=run_worker,
            boot_timeout_s=WORKER_BOOT_TIMEOUT_S,
            boot_failure_code=WORKER_FAILED,
            count=live.current.server.workers,
            indexed=True,
            needs=(AGENT,),
            listeners=listeners,
            owns_partitions=True,
            count_max=WORKERS_MAX,
            prepare=prepare_worker,
            metrics=WORKER_METRICS,
        ),
    )


def _confine(
    separation: Separation, live: LiveSettings, files: list[Path], passphrase: PassphraseSource
) -> None:
    """In a child: give up what it does not need, for good."""
    separation.become_server()
    no_new_privileges()
    if not live.current.server.sandbox:
        return
    forbid_inspection()
    if files:
        forbidden = files if passphrase.path is None else [*files, passphrase.path]
        try:
            if not landlock.forbid(forbidden):
                log.info("landlock_unavailable")
        except OSError as error:
            log.warning("landlock_failed", extra={"reason": error.strerror})


class _Changed:
    """Tells whether a file is another one than when it was asked before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._now()

    def _now(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def __call__(self) -> bool:
        before, self._seen = self._seen, self._now()
        return before != self._seen


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


def _worker_main(context: WorkerContext) -> int:
    """Import the worker in the child: the supervisor must not load what it needs."""
    from relay.server.worker.process.main import worker_main

    return worker_main(context)


def _agent_main(context: AgentContext) -> int:
    from relay.server.agent.main import agent_main

    return agent_main(context)


def _resolve(settings: Settings, data: Path, runtime: Path) -> Settings:
    server = settings.server
    workers = server.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX)
    files = inherited.raise_open_files_limit()
    reserved = FILES_RESERVED + workers + len(server.bind)
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


def _connections_max(wanted: int, limit: int, reserved: int) -> int:
    """Return how many connections a worker may have: as wanted, or 0: as the limits allow.

    Raises:
        StartError: the limit on open files leaves none.
    """
    possible = limit - reserved
    least = wanted or CONNECTIONS_EXPECTED
    advice = f"a worker needs {reserved} open files and one for each connection"
    if possible < 1:
        raise StartError(
            f"the limit on open files is {limit}: {advice}; raise it (ulimit -Hn, LimitNOFILE)"
        )
    if possible < least:
        log.warning(
            "open_files_limit_low",
            extra={
                "has": limit,
                "needs": reserved + least,
                "reserved": reserved,
                "connections_wanted": least,
                "connections_possible": possible,
                "reason": f"{advice}; raise it (ulimit -Hn, LimitNOFILE)",
            },
        )
    return min(wanted or CONNECTIONS_DERIVED_MAX, possible)


def _addresses(fingerprint: str, listeners: tuple[socket.socket, ...]) -> list[str]:
    """Return what clients are given: an address of each family stands for all of them."""
    return [
        listener.format_bound(sock)
        if sock.family == socket.AF_UNIX
        else f"relay://{fingerprint}@{listener.reachable_address(sock)}"
        for sock in sorted(listeners, key=lambda sock: sock.family == socket.AF_UNIX)
    ]


def _control_main(context: ControlContext) -> int:
    from relay.server.control.main import control_main

    return control_main(context)
