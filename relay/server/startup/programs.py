"""The processes of a server: the table of roles, and what each is started with."""

from __future__ import annotations

import gc
import logging
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from relay.chat.partition import PARTITIONS
from relay.loading import no_collections
from relay.local_sockets import is_gone
from relay.paths import followed
from relay.server import logs
from relay.server.context import (
    AGENT,
    CONTROL,
    WORKER,
    AgentContext,
    ControlContext,
    WorkerContext,
    agent_socket,
)
from relay.server.keys.key_files import KEY_FILE, KEY_FILES, NEXT_KEY_FILE
from relay.server.keys.passphrase import PassphraseSource
from relay.server.metrics import AGENT as AGENT_METRICS
from relay.server.metrics import WORKER as WORKER_METRICS
from relay.server.privileges import Separation
from relay.server.registration import RegistrationRecord
from relay.server.settings.live import LiveSettings
from relay.server.supervisor.roles import Launch, Role, Step
from relay.server.supervisor.sockets import Sockets
from relay.server.system import landlock
from relay.server.system.inherited_secret import InheritedSecret
from relay.server.system.prctl import forbid_inspection, no_new_privileges
from relay.server.ticket_register import TicketRegister
from relay.settings import WORKERS_MAX
from relay.store.file.companions import index_path, place_lock_path, wal_path
from relay.store.file.directory import FORMAT_FILE, DataDirectory

AGENT_BOOT_TIMEOUT_S: Final = 120.0
"""The first start generates the key; 8192 bits take up to a minute."""
CONTROL_BOOT_TIMEOUT_S: Final = 30.0
WORKER_BOOT_TIMEOUT_S: Final = 30.0
WORKER_FAILED: Final = 3
"""Exit code of a server whose workers cannot boot (gunicorn's)."""
log = logging.getLogger("relay.supervisor")


@dataclass(frozen=True, slots=True)
class Resources:
    """What the start has prepared for all processes."""

    live: LiveSettings
    sockets: Sockets
    """The sockets to listen on. Processes started after a replacement get the new socket."""
    data: Path
    runtime: Path
    boot_id: str
    record: RegistrationRecord
    passphrase: PassphraseSource
    tickets: TicketRegister
    ticket_keys: InheritedSecret
    separation: Separation
    new_identity: bool
    first_generation: int
    """Of this server's processes. It is part of the name of the key agent's socket, which therefore
    differs from that of the previous server, still in use."""

    @property
    def agent_path(self) -> Path:
        """The socket of the key agent."""
        return agent_socket(self.runtime, self.first_generation)


def roles(resources: Resources) -> tuple[Role, ...]:
    """Return the table of a server's processes."""
    # The first in the table stops last: it reports on the others until they are gone.
    return _control(resources), _agent(resources), _worker(resources)


def _control(resources: Resources) -> Role:
    sockets = resources.sockets
    return Role(
        name=CONTROL,
        title="control",
        run=partial(_run_control, resources),
        boot_timeout_s=CONTROL_BOOT_TIMEOUT_S,
        boot_failure_code=1,
        listeners=lambda: () if sockets.control is None else (sockets.control,),
        renewed=sockets.renew_control,
        asks=True,
        waits=Step.GONE,  # until then the previous one has the socket of ``relay ctl``
    )


def _agent(resources: Resources) -> Role:
    path = resources.agent_path
    # An agent with another user than the directory's cannot recreate its socket.
    cannot_renew = resources.separation.agent is not None
    return Role(
        name=AGENT,
        title="key agent",
        run=partial(_run_agent, resources),
        boot_timeout_s=AGENT_BOOT_TIMEOUT_S,
        boot_failure_code=1,
        metrics=AGENT_METRICS,
        outdated=_Changed(resources.data / NEXT_KEY_FILE),
        renewed=(lambda: is_gone(path) and path.parent.is_dir()) if cannot_renew else None,
    )


def _worker(resources: Resources) -> Role:
    sockets = resources.sockets
    return Role(
        name=WORKER,
        title="worker {index}",
        run=partial(_run_worker, resources),
        boot_timeout_s=WORKER_BOOT_TIMEOUT_S,
        boot_failure_code=WORKER_FAILED,
        count=resources.live.current.server.workers,
        indexed=True,
        needs=(AGENT,),
        listeners=lambda: sockets.clients,
        renewed=sockets.renew_clients,
        owns_partitions=True,
        waits=Step.GAVE_AWAY,
        count_max=WORKERS_MAX,
        load=_load_worker,
        prepare=partial(_prepare_worker, resources),
        load_ahead=_load_worker_ahead,
        metrics=WORKER_METRICS,
    )


def _load_worker() -> None:
    import relay.server.worker.process.before_fork  # noqa: F401


# --- in the children --------------------------------------------------------------------------
# The programs are imported here: the supervisor must not load their dependencies. What it may load,
# ``Role.load`` imports before the fork.
def _run_control(resources: Resources, launch: Launch) -> int:
    resources.tickets.close()
    resources.ticket_keys.close()
    resources.passphrase.close()
    _confine(resources, [])
    with no_collections():
        from relay.server.control.main import control_main

    return control_main(
        ControlContext(
            live=resources.live,
            boards=launch.boards,
            scoreboard=launch.scoreboard,
            listener=resources.sockets.control,
            supervisor=socket.socket(fileno=launch.line_fd),
            data=resources.data,
            runtime=resources.runtime,
            parent_fd=launch.parent_fd,
            boot=launch.boot,
            gate_fd=launch.gate_fd,
        )
    )


def _run_agent(resources: Resources, launch: Launch) -> int:
    with no_collections():
        from relay.server.agent.main import agent_main

    return agent_main(
        AgentContext(
            live=resources.live,
            socket_path=resources.agent_path,
            key_path=resources.data / KEY_FILE,
            scoreboard=launch.scoreboard,
            tickets=resources.tickets,
            ticket_keys=resources.ticket_keys,
            passphrase=resources.passphrase,
            separation=resources.separation,
            new_identity=resources.new_identity,
            expected_fingerprint=launch.text,
            parent_fd=launch.parent_fd,
            boot=launch.boot,
        )
    )


def _prepare_worker(resources: Resources) -> None:
    resources.passphrase.close()
    resources.ticket_keys.close()
    _confine(resources, [resources.data / name for name in KEY_FILES])


def _load_worker_ahead() -> None:
    """In a spare process: the CPU is first for those that serve."""
    from relay.server.system.threads import import_at_low_priority

    import_at_low_priority(_import_worker)


def _import_worker() -> None:
    import relay.server.worker.process.main  # noqa: F401

    # Here, not in ``Collector.start``: a spare has time now, and is in a hurry then.
    gc.collect()
    gc.freeze()


def _run_worker(resources: Resources, launch: Launch) -> int:
    if resources.live.changed() is not None:  # since the spare process was forked
        logs.set_level(resources.live.current.log)
    agent = resources.separation.agent
    return _worker_main(
        WorkerContext(
            index=launch.index,
            generation=launch.generation,
            live=resources.live,
            listeners=resources.sockets.clients,
            scoreboard=launch.scoreboard,
            tickets=resources.tickets,
            runtime=resources.runtime,
            data=resources.data,
            registration=resources.record.mode,
            invitation_path=resources.record.invitation_path,
            boot_id=resources.boot_id,
            parent_fd=launch.parent_fd,
            boot=launch.boot,
            agent_uid=None if agent is None else agent.uid,
            first_generation=resources.first_generation,
            gate_fd=launch.gate_fd,
        )
    )


def _worker_main(context: WorkerContext) -> int:
    with no_collections():
        from relay.server.worker.process.main import worker_main

    return worker_main(context)


def _confine(resources: Resources, files: list[Path]) -> None:
    """In a child: give up what it does not need, permanently."""
    resources.separation.become_server()
    no_new_privileges()
    if not resources.live.current.server.sandbox:
        return
    forbid_inspection()
    if files:
        passphrase = resources.passphrase
        forbidden = files if passphrase.path is None else [*files, passphrase.path]
        try:
            if not landlock.forbid(forbidden, _needed(resources, forbidden)):
                log.info("landlock_unavailable")
        except OSError as error:
            log.warning("landlock_failed", extra={"reason": error.strerror})


def _needed(resources: Resources, forbidden: list[Path]) -> list[Path]:
    """Return files that a worker opens and that may be beside the key, or on the path to it."""
    directory = DataDirectory(resources.data)
    partitions = [directory.partition_path(index) for index in range(PARTITIONS)]
    return [
        resources.data / FORMAT_FILE,
        resources.record.invitation_path,
        # They may be links to anywhere.
        *(
            of(path)
            for path in partitions
            for of in (followed, wal_path, index_path, place_lock_path)
        ),
        *map(Path, sys.path),  # code may be in an archive
        *landlock.beside(forbidden, resources.data),
    ]


class _Changed:
    """Detects whether a file has changed since the last check."""

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
