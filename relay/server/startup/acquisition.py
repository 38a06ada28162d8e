"""What a server holds alone: its data directory, its runtime directory, its sockets.

An ordinary start locks, repairs and binds them; an upgrade takes them over from the running server.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from relay.errors import StartError
from relay.server import privileges, registration
from relay.server.keys.key_files import KEY_FILE
from relay.server.keys.passphrase import PassphraseSource
from relay.server.privileges import Separation
from relay.server.registration import RegistrationRecord
from relay.server.settings.effective import absolute
from relay.server.startup import recovery
from relay.server.startup.data_lock import DataLock
from relay.server.supervisor import runtime_directory
from relay.server.supervisor.handover import Handover
from relay.server.supervisor.runtime_directory import RuntimeDirectory
from relay.server.supervisor.service_manager import given_sockets
from relay.server.supervisor.sockets import Sockets
from relay.server.system.boot_id import boot_id as current_boot_id
from relay.settings import Settings
from relay.store.file.directory import DataDirectory


@dataclass(frozen=True, slots=True)
class Acquired:
    """What a server holds alone."""

    separation: Separation
    directory: DataDirectory
    lock: DataLock
    """Of the data directory."""
    runtime: RuntimeDirectory
    sockets: Sockets
    passphrase: PassphraseSource
    record: RegistrationRecord
    boot_id: str

    def close_in_child(self) -> None:
        """Close what only the supervisor holds."""
        self.lock.close()
        self.runtime.close()

    def close(self, *, shared: bool) -> None:
        """Give everything back. ``shared``: another server has it, too, and continues to use it."""
        _leave(self.runtime, self.separation, shared=shared)
        self.sockets.close(self.separation.lowered, shared=shared)
        self.lock.close()


def acquire(
    settings: Settings,
    environ: MutableMapping[str, str],
    before: Handover | None,
    *,
    new_identity: bool,
) -> Acquired:
    """Lock, repair and bind what ``settings`` name, or take it over.

    Args:
        settings: as they were given.
        environ: may name sockets from a service manager.
        before: what the running server hands over; None: an ordinary start.
        new_identity: the server's key may be missing although there are messages.

    Raises:
        UsageError, StartError: it cannot be used. Then nothing is held.
    """
    sockets = Sockets(given_sockets(environ)) if before is None else Sockets.handed_over(before)
    # The data directory first: the holder of its lock may clean up after a dead run.
    separation = privileges.resolve(settings.server.user, settings.server.agent_user)
    path = absolute("store.data", settings.store.data)
    separation.prepare(path)
    with separation.lowered():
        directory = DataDirectory(path)
    lock = DataLock(directory, separation)
    if before is None:
        lock.take()
    passphrase = PassphraseSource(
        settings.server.key_passphrase, -1 if before is None else before.passphrase
    )
    with contextlib.ExitStack() as undo:
        undo.callback(lock.close)
        undo.callback(sockets.close, separation.lowered, shared=before is not None)
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
        undo.callback(_leave, runtime, separation, shared=before is not None)
        if before is None:  # bound here, the port survives every worker
            sockets.bind(settings.server.bind, settings.control.bind, separation.lowered)
        undo.pop_all()
    return Acquired(
        separation=separation,
        directory=directory,
        lock=lock,
        runtime=runtime,
        sockets=sockets,
        passphrase=passphrase,
        record=record,
        boot_id=boot_id,
    )


def _leave(runtime: RuntimeDirectory, separation: Separation, *, shared: bool) -> None:
    if not shared:
        with separation.lowered():
            runtime.clean_up()
    runtime.close()


def _runtime(settings: Settings) -> str:
    wanted = settings.server.runtime
    return str(absolute("server.runtime", wanted)) if wanted else ""


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
