"""Selects the key for logging in once the server is known. Names are claimed only on purpose."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from relay.chat import names
from relay.chat.accounts import invitation
from relay.chat.accounts.chain import Pin
from relay.client import arguments
from relay.client.devices.device_key import DeviceKey
from relay.client.devices.key_files import LOCK_S, KeyFiles
from relay.client.devices.proof import Credentials
from relay.client.errors import NoDeviceKey
from relay.client.file_lock import locked
from relay.errors import UsageError
from relay.paths import given, is_there
from relay.secret import Secret

REGISTER_VARIABLE: Final = "RELAY_REGISTER"
"""1: a program without a key creates one, and claims its name, at the first use: for tests."""


log: Final = logging.getLogger(__name__)


class KeyChoice:
    """A program's choice of its key; ``at`` resolves it for a server."""

    def __init__(
        self,
        name: str,
        key: DeviceKey | str | os.PathLike[str] | None,
        register: bool | None,
        invitation_text: str | None,
        files: KeyFiles,
        *,
        named: bool = True,
    ) -> None:
        """Take the arguments.

        Args:
            name: of the client.
            key: a key, the path of its file, or None: the user's own for this server and name.
            register: claim the name if it is free; None: if ``RELAY_REGISTER`` is 1.
            invitation_text: an invitation as given to a person; with it a name is claimed.
            files: the user's own keys.
            named: False if the program gave no name.

        Raises:
            TypeError, ValueError: a key of another type, or without a name.
            UsageError: the invitation, or a path that cannot be expanded.
        """
        if key is not None and not isinstance(key, DeviceKey | str | os.PathLike):
            raise TypeError(f"key must be a DeviceKey or a path, not {type(key).__name__}")
        if key is not None and not named:
            raise ValueError("a key without the name that it is for")
        if invitation_text is not None and not isinstance(invitation_text, str):
            raise TypeError(f"invitation must be a str, not {type(invitation_text).__name__}")
        self._name = names.normal(name)
        self._key = key if key is None or isinstance(key, DeviceKey) else given(key)
        self._register = arguments.flag_or_none("register", register)
        self._files = files
        self._made: tuple[Path, tuple[int, int] | None] | None = None
        """The file of a key that was created here, and its identity at that time."""
        self._kept = False
        """True: pins are kept in the user's directory."""
        self._token = Secret(b"")
        if invitation_text is not None:
            try:
                self._token = Secret(invitation.token_of(invitation_text))
            except ValueError:
                raise UsageError(
                    "this is not an invitation: those have 52 characters of a-z and 2-7"
                ) from None

    @property
    def needs_files(self) -> bool:
        """False if ``at`` reads no file and may be called in an event loop."""
        return self._in_file and not names.is_guest(self._name)

    @property
    def _in_file(self) -> bool:
        """False for a key in memory only: it is lost with the program, and so is what it saw."""
        return not isinstance(self._key, DeviceKey) or self._key.path is not None

    def at(self, server_id: str) -> Credentials:
        """Return the credentials for a server.

        Raises:
            UsageError: a key file cannot be used.
        """
        self.unused()  # created for another id: this server does not know it
        name, files = self._name, self._files
        if names.is_guest(name) or not names.is_handle(name):
            return Credentials(server_id, None, False, False, b"", {}, None)
        register = self._register
        if register is None:
            register = os.environ.get(REGISTER_VARIABLE, "") == "1"
        wanted = register or bool(self._token)
        path = self._path(server_id)
        try:
            key, new = self._found(server_id, wanted)
            while (
                wanted and path is not None and not self._touched(path, new and path in files.made)
            ):
                key, new = self._found(server_id, wanted)  # its creator has removed it
        except NoDeviceKey as error:
            return Credentials(server_id, None, False, False, b"", {}, None, error)
        # Not a key from a file that the program has opened itself (with a passphrase, or --key).
        self._kept = self._in_file
        pins = files.pins(server_id) if self._kept else {}
        chain = files.chain(server_id, name) if self._kept else None
        if self._key is None and not wanted:
            files.used(server_id, name)
        first = wanted and (new or bool(self._token) or self._register is True)
        return Credentials(server_id, key, wanted, first, self._token, pins, chain)

    def unused(self) -> None:
        """Remove the file of a key that was created here and that no server has accepted.

        A key is on the disk before a server can learn of it, so no accepted key is ever lost. If
        another program has read the key from the file meanwhile, it has touched the file, which
        then stays.
        """
        made, self._made = self._made, None
        if made is None:
            return
        path, version = made
        with contextlib.suppress(OSError), _locked_beside(path):
            if version is not None and _version_of(path) == version:
                path.unlink()
                path.parent.rmdir()  # if it is empty: the server was not a relay

    def _touched(self, path: Path, made: bool) -> bool:
        """Touch a key file, to tell its creator that the key is used: it stays, see ``unused``.

        Returns:
            False: the file is gone.
        """
        with _locked_beside(path):
            try:
                # Later than before, whatever the clock of the file system, so that the touch is
                # noticed.
                now = max(time.time_ns(), path.stat().st_mtime_ns + 1)
                os.utime(path, ns=(now, now))
            except FileNotFoundError:
                return False
            except OSError:  # read-only: others cannot remove it either
                pass
            if made:
                self._made = path, _version_of(path)
        return True

    def _path(self, server_id: str) -> Path | None:
        """Return the path of the key; None: it is in no file."""
        if isinstance(self._key, DeviceKey):
            return None
        return self._files.path_of(server_id, self._name) if self._key is None else self._key

    def _found(self, server_id: str, wanted: bool) -> tuple[DeviceKey, bool]:
        """Return (the key, whether it was created now)."""
        files = self._files
        if isinstance(self._key, DeviceKey):
            return self._key, False
        if self._key is not None:
            if is_there(self._key) or not wanted:
                return files.load(self._key), False
            return files.make(self._key, self._name), True
        found = files.find(server_id, self._name)
        if found is not None:
            return found, False
        if not wanted:
            raise NoDeviceKey(
                f"no device key for the name {self._name!r} at this server: register the name with "
                "'relay register', add this device with 'relay device request', or give key="
            )
        return files.create(server_id, self._name), True

    def keep(self, server_id: str, seen: dict[str, Pin], own_links: list[bytes] | None) -> None:
        """Keep what was seen of chains. What cannot be written is logged, and will be seen again.

        Args:
            server_id: of the server.
            seen: chains of other accounts, and this one's own.
            own_links: of this account's chain; None: unchanged.
        """
        if not self._kept:
            return
        try:
            for name, pin in seen.items():
                self._files.pin(server_id, name, pin)
        except UsageError as error:
            log.warning("%s", error)
        if own_links is not None:
            self._files.keep_chain(server_id, self._name, own_links)


@contextlib.contextmanager
def _locked_beside(path: Path) -> Iterator[None]:
    """Exclude other programs that use a key file, by a lock on its directory.

    Where there is no such lock, as on Windows, they are not excluded.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with locked(descriptor, shared=False, timeout_s=LOCK_S):
            yield
    finally:
        os.close(descriptor)


def _version_of(path: Path) -> tuple[int, int] | None:
    """Return a value that changes when a file is touched or replaced; None: it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
