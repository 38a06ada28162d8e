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

import setproctitle

from relay import __version__, compiled
from relay.bus.format import BUS_FORMAT
from relay.chat.partition import PARTITIONS
from relay.declarations import as_toml
from relay.errors import StartError
from relay.server import logs, registration
from relay.server.context import AGENT
from relay.server.settings.changes import RuntimeChanges
from relay.server.settings.effective import check_open_files, effective
from relay.server.settings.live import LiveSettings
from relay.server.startup.acquisition import Acquired, acquire
from relay.server.startup.programs import Resources, roles
from relay.server.supervisor import listener, parent, signals
from relay.server.supervisor.config import SupervisorConfig
from relay.server.supervisor.handover import FORMAT as HANDOVER_FORMAT
from relay.server.supervisor.handover import Handover
from relay.server.supervisor.next_program import next_environment, own_command
from relay.server.supervisor.roles import Step
from relay.server.supervisor.runtime_directory import RuntimeDirectory
from relay.server.supervisor.service_manager import ServiceManager
from relay.server.supervisor.sockets import Sockets
from relay.server.supervisor.supervisor import Supervisor
from relay.server.supervisor.takeover import Takeover
from relay.server.supervisor.upgrade import Program, Upgrade
from relay.server.system import inherited
from relay.server.system.inherited_secret import InheritedSecret
from relay.server.system.needed_calls import check_all
from relay.server.system.prctl import forbid_inspection
from relay.server.system.resource_limits import refusal
from relay.server.ticket_register import TicketRegister
from relay.settings import Accounts, Settings
from relay.store.file.format import FORMAT_VERSION

FIXED: Final = (
    "server.bind", "server.runtime", "server.user", "server.agent_user", "store.data",
    "control.bind",
)  # fmt: skip
"""Settings that an upgrade cannot change: it takes over what they stand for."""
HANDOVER_LOCK_S: Final = 10.0
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
            check_all()
            return _start(settings, announce, load, new_identity, environ, takeover)
    except OSError as error:
        raise StartError(f"the supervisor: {refusal(error)}") from error
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
    if variables := inherited.python_variables(environ):
        log.warning("python_variables", extra={"variables": variables})
    setproctitle.setproctitle("relay: supervisor")
    if wanted.server.sandbox:
        forbid_inspection()  # it has open what the key agent needs
    manager = ServiceManager.of(os.environ)
    fixed = {path: as_toml(wanted.value_of(path)) for path in FIXED}
    before = None if takeover is None else takeover.handover
    if takeover is not None:
        takeover.check(FORMAT_VERSION, fixed)
    check_open_files(wanted)
    acquired = acquire(wanted, os.environ, before, new_identity=new_identity)
    supervisor: Supervisor | None = None
    try:
        paths = acquired.directory.path, acquired.runtime.path
        live = LiveSettings(effective(wanted, *paths))
        _log_start(live.current, acquired.sockets)
        # Children share this process's memory; the collector must not write to it.
        gc.collect()
        gc.freeze()
        changes = RuntimeChanges(wanted, live, load, lambda wanted: effective(wanted, *paths))
        resources = _resources(acquired, live, before, new_identity=new_identity)
        program = Program(
            own_command(),
            next_environment(environ),
            partial(_hand_over, fixed, resources, acquired.runtime, takeover),
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
                on_serving=partial(_announce, announce, acquired),
                close_in_child=acquired.close_in_child,
                version=__version__,
                key_role=AGENT,
                program=program,
                formats={"bus": str(BUS_FORMAT), "partitions": str(PARTITIONS)},
                takeover=takeover,
                check_count=partial(check_open_files, wanted),
                on_alone=partial(_begin_alone, acquired, wanted.accounts),
            )
        )
        code = supervisor.run()
    finally:
        shared = supervisor is not None and supervisor.successor is not None
        shared = shared or (takeover is not None and takeover.step is not Step.GONE)
        acquired.close(shared=shared)
    successor = supervisor.successor
    if successor is None:
        signals.ignore()
        return code
    return _stay(successor, code, manager, takeover)


def _log_start(settings: Settings, sockets: Sockets) -> None:
    control = sockets.control
    log.info(
        "starting",
        extra={
            "version": __version__,
            "build": compiled.build(),
            "pid": os.getpid(),
            "bind": [listener.format_bound(sock) for sock in sockets.clients],
            "control": "off" if control is None else listener.format_bound(control),
            "workers": settings.server.workers,
            "data": settings.store.data,
            "max_connections": settings.server.max_connections,
        },
    )


def _resources(
    acquired: Acquired, live: LiveSettings, before: Handover | None, *, new_identity: bool
) -> Resources:
    return Resources(
        live=live,
        sockets=acquired.sockets,
        data=acquired.directory.path,
        runtime=acquired.runtime.path,
        boot_id=acquired.boot_id,
        record=acquired.record,
        passphrase=acquired.passphrase,
        tickets=TicketRegister(-1 if before is None else before.tickets),
        ticket_keys=InheritedSecret(
            "relay-ticket-keys", -1 if before is None else before.ticket_keys
        ),
        separation=acquired.separation,
        new_identity=new_identity and before is None,
        first_generation=0 if before is None else before.generation,
    )


def _announce(announce: Announce, acquired: Acquired, texts: dict[str, str]) -> None:
    """Every worker serves."""
    record = acquired.record
    announce(
        _addresses(texts[AGENT], acquired.sockets.clients),
        record.invitation_path if record.waits_for_operator else None,
        record.mode,
    )


def _stay(successor: Upgrade, code: int, manager: ServiceManager, takeover: Takeover | None) -> int:
    """After an upgrade: stay for as long as somebody waits for this process; return its exit code.

    ``code``: if nobody does.
    """
    if successor.lost:
        return 1
    with successor.gone(stays=not manager.there) as line:
        if manager.there:
            return code  # it knows the new main process
        if takeover is not None and takeover.stays:
            takeover.main_is(successor.pid)
            return code
        return parent.stay(successor.pid, line)


def _begin_alone(acquired: Acquired, accounts: Accounts) -> None:
    """Nothing is left of the previous server: take its lock, and record the current settings.

    Raises:
        StartError: it has not released the lock.
    """
    acquired.lock.take(HANDOVER_LOCK_S)
    try:
        with acquired.separation.lowered():
            registration.prepare(acquired.directory.path, accounts)
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


def _addresses(fingerprint: str, listeners: tuple[socket, ...]) -> list[str]:
    """Return the addresses for clients; wildcard addresses are replaced by a reachable one."""
    return [
        listener.format_bound(sock)
        if sock.family == AF_UNIX
        else f"relay://{fingerprint}@{listener.reachable_address(sock)}"
        for sock in sorted(listeners, key=lambda sock: sock.family == AF_UNIX)
    ]
