"""Starts the server: everything that is done before the first fork, in order."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Final, TypeAlias

import msgspec
import setproctitle

from relay import __version__, compiled
from relay.bus.format import BUS_FORMAT
from relay.chat.partition import PARTITIONS
from relay.declarations import as_toml
from relay.errors import StartError
from relay.server import inherited, logs, privileges, recovery, registration
from relay.server.boot_id import boot_id as current_boot_id
from relay.server.context import AGENT
from relay.server.data_lock import DataLock
from relay.server.inherited_secret import InheritedSecret
from relay.server.key_files import KEY_FILE
from relay.server.live_settings import LiveSettings
from relay.server.passphrase import PassphraseSource
from relay.server.prctl import forbid_inspection
from relay.server.privileges import Separation
from relay.server.programs import Resources, roles
from relay.server.runtime_changes import RuntimeChanges
from relay.server.supervisor import listener, parent, runtime_directory, signals
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.handover import FORMAT as HANDOVER_FORMAT
from relay.server.supervisor.handover import Handover
from relay.server.supervisor.next_program import next_environment, own_command
from relay.server.supervisor.roles import Step
from relay.server.supervisor.runtime_directory import RuntimeDirectory
from relay.server.supervisor.service_manager import ServiceManager, given_sockets
from relay.server.supervisor.sockets import Sockets
from relay.server.supervisor.supervisor import Supervisor
from relay.server.supervisor.takeover import Takeover
from relay.server.supervisor.upgrade import Program
from relay.server.ticket_register import TicketRegister
from relay.settings import WORKERS_MAX, Accounts, Settings
from relay.store.directory import DataDirectory
from relay.store.format import FORMAT_VERSION

FIXED: Final = (
    "server.bind", "server.runtime", "server.user", "server.agent_user", "store.data",
    "control.bind",
)  # fmt: skip
"""Settings that an upgrade cannot change: it takes over what they stand for."""
HANDOVER_LOCK_S: Final = 10.0
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
Announce: TypeAlias = Callable[[list[str], Path | None, str], None]
"""Called with the addresses in the form for clients, the file of the first invitation (None: it was
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

    ``inherited.reset`` must have been called.

    Args:
        settings: of the server.
        announce: called once, when every worker serves.
        load: reads the settings again, for a reload; raises UsageError.
        new_identity: create a key even though there are messages, to replace a lost key.

    Raises:
        UsageError, StartError: it cannot run; the message names what to do.
    """
    environ = dict(os.environ)
    takeover = Takeover.of(os.environ)
    logs.set_up(settings.log)
    try:
        with logs.stderr_to_log():
            return _start(settings, announce, load, new_identity, environ, takeover)
    finally:
        if takeover is not None:
            takeover.failed()
            takeover.close()


def _start(
    wanted: Settings,
    announce: Announce,
    load: Callable[[], Settings],
    new_identity: bool,
    environ: Mapping[str, str],
    takeover: Takeover | None,
) -> int:
    settings = wanted
    if variables := inherited.python_variables(environ):
        log.warning("python_variables", extra={"variables": variables})
    setproctitle.setproctitle("relay: supervisor")
    if settings.server.sandbox:
        forbid_inspection()  # it has open what the key agent needs
    manager = ServiceManager.of(os.environ)
    fixed = {path: as_toml(wanted.value_of(path)) for path in FIXED}
    before = None if takeover is None else takeover.handover
    if takeover is not None:
        takeover.check(FORMAT_VERSION, fixed)
    sockets = Sockets(given_sockets(os.environ)) if before is None else Sockets.handed_over(before)

    # 1. The data directory first: the holder of its lock may clean up after a dead run.
    separation = privileges.resolve(settings.server.user, settings.server.agent_user)
    path = _absolute("store.data", settings.store.data)
    separation.prepare(path)
    with separation.lowered():
        directory = DataDirectory(path)
    lock = DataLock(directory, separation)
    if before is None:
        lock.take()
    passphrase = PassphraseSource(
        settings.server.key_passphrase, -1 if before is None else before.passphrase
    )
    runtime: RuntimeDirectory | None = None
    supervisor: Supervisor | None = None
    try:
        boot_id = current_boot_id()
        with separation.lowered():
            record = registration.prepare(directory.path, settings.accounts, change=before is None)
            if before is None:
                _check_identity(directory, new_identity)
                recovery.recover(directory, boot_id, settings.store.durability, lock.close)
                runtime = runtime_directory.prepare(_runtime(settings), directory.path)
            else:
                runtime = runtime_directory.handed_over(
                    Path(before.runtime), directory.path, before.runtime_lock
                )

        # 2. Sockets. The port is bound here, so that it survives every worker.
        if before is None:
            sockets.bind(settings.server.bind, settings.control.bind, separation.lowered)
        listeners, control = sockets.clients, sockets.control

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

        # 4. Children share this process's memory; the collector must not write to it.
        gc.collect()
        gc.freeze()
        live = LiveSettings(settings)
        paths = directory.path, runtime.path
        changes = RuntimeChanges(wanted, live, load, lambda wanted: _resolve(wanted, *paths))
        resources = Resources(
            live=live,
            sockets=sockets,
            data=directory.path,
            runtime=runtime.path,
            boot_id=boot_id,
            record=record,
            passphrase=passphrase,
            tickets=TicketRegister(-1 if before is None else before.tickets),
            ticket_keys=InheritedSecret(
                "relay-ticket-keys", -1 if before is None else before.ticket_keys
            ),
            separation=separation,
            new_identity=new_identity and before is None,
            first_generation=0 if before is None else before.generation,
        )
        supervisor = Supervisor(
            SupervisorConfig(
                roles=roles(resources),
                requests=changes.requests,
                reload=changes.reload,
                partitions=PARTITIONS,
                heartbeat_timeout_s=lambda: live.current.server.worker_timeout_s,
                graceful_timeout_s=lambda: changes.stop_timeout_s,
                age_max_s=lambda: live.current.server.max_worker_age_s,
                spare=live.current.server.spare_worker,
                expedite_stop=changes.expedite_stop,
                manager=manager,
                on_serving=lambda texts: announce(
                    _addresses(texts[AGENT], listeners),
                    record.invitation_path if record.waits_for_operator else None,
                    record.mode,
                ),
                close_in_child=_close_all(lock.close, runtime.close),
                version=__version__,
                key_role=AGENT,
                program=Program(
                    own_command(),
                    next_environment(environ),
                    partial(_hand_over, fixed, resources, runtime, takeover),
                ),
                formats={"bus": str(BUS_FORMAT), "partitions": str(PARTITIONS)},
                takeover=takeover,
                on_alone=partial(_begin_alone, lock, separation, directory, settings.accounts),
            )
        )
        code = supervisor.run()
    finally:
        shared = supervisor is not None and supervisor.successor is not None
        shared = shared or (takeover is not None and takeover.step is not Step.GONE)
        if runtime is not None:
            if not shared:
                with separation.lowered():
                    runtime.clean_up()
            runtime.close()
        sockets.close(separation.lowered, shared=shared)
        lock.close()
    successor = supervisor.successor
    if successor is None:
        signals.ignore()
        return code
    if successor.lost:
        return 1
    with successor.gone(stays=not manager.there) as line:
        if manager.there:
            return code  # it knows the new main process
        if takeover is not None and takeover.stays:
            takeover.main_is(successor.pid)
            return code
        return parent.stay(successor.pid, line)


def _begin_alone(
    lock: DataLock, separation: Separation, directory: DataDirectory, accounts: Accounts
) -> None:
    """Nothing is left of the previous server: take its lock, and record the current settings.

    Raises:
        StartError: it has not released the lock.
    """
    lock.take(HANDOVER_LOCK_S)
    try:
        with separation.lowered():
            registration.prepare(directory.path, accounts)
    except StartError as error:  # they apply nevertheless; the next start records them
        log.warning("registration_not_written", extra={"reason": str(error)})


def _hand_over(
    fixed: dict[str, str],
    resources: Resources,
    runtime: RuntimeDirectory,
    takeover: Takeover | None,
    generation: int,
    fingerprint: str,
) -> Handover:
    """Return what the next version receives from this server."""
    sockets = resources.sockets
    return Handover(
        format=HANDOVER_FORMAT,
        data_format=FORMAT_VERSION,
        generation=generation,
        fingerprint=fingerprint,
        fixed=fixed,
        listeners=[sock.fileno() for sock in sockets.clients],
        listeners_kept=sockets.clients_kept,
        control=None if sockets.control is None else sockets.control.fileno(),
        control_kept=sockets.control_kept,
        runtime=str(runtime.path),
        runtime_lock=runtime.lock_fd,
        passphrase=resources.passphrase.copy_fd,
        tickets=resources.tickets.fd,
        ticket_keys=resources.ticket_keys.fd,
        parent_line=-1 if takeover is None else takeover.parent_fd,
        stderr=os.dup(2),
    )


def _close_all(*closes: Callable[[], None]) -> Callable[[], None]:
    def close() -> None:
        for one in closes:
            one()

    return close


def _runtime(settings: Settings) -> str:
    wanted = settings.server.runtime
    return str(_absolute("server.runtime", wanted)) if wanted else ""


def _absolute(setting: str, text: str) -> Path:
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


def _check_identity(directory: DataDirectory, new_identity: bool) -> None:
    """Raise StartError if a key would be created that nobody asked for."""
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


def _resolve(settings: Settings, data: Path, runtime: Path) -> Settings:
    server = settings.server
    workers = server.workers or min(len(os.sched_getaffinity(0)), WORKERS_MAX)
    files = inherited.raise_open_files_limit()
    # In an upgrade there are twice as many workers, each with a link to every other one.
    reserved = FILES_RESERVED + 2 * workers + len(server.bind)
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
    """Return the maximum number of connections of a worker: as configured, or 0: as limits allow.

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


def _addresses(fingerprint: str, listeners: tuple[socket, ...]) -> list[str]:
    """Return the addresses for clients; wildcard addresses are replaced by a reachable one."""
    return [
        listener.format_bound(sock)
        if sock.family == AF_UNIX
        else f"relay://{fingerprint}@{listener.reachable_address(sock)}"
        for sock in sorted(listeners, key=lambda sock: sock.family == AF_UNIX)
    ]
