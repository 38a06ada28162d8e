"""Which key a client logs in with, once the server is known; a name is claimed only on purpose."""

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
from relay.client.device_key import DeviceKey
from relay.client.errors import NoDeviceKey
from relay.client.file_lock import locked
from relay.client.key_files import LOCK_S, KeyFiles
from relay.client.proof import Credentials
from relay.errors import UsageError
from relay.paths import given, is_there
from relay.secret import Secret

REGISTER_VARIABLE: Final = "RELAY_REGISTER"
"""1: a program without a key makes one, and claims its name, at the first use: for tests."""


log: Final = logging.getLogger(__name__)


class KeyChoice:
    """What a program has chosen for its key; what that means at a server is found by ``at``."""

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
        """Take what was given.

        Args:
            name: of the client.
            key: a key, the path of its file, or None: the user's own for this server and name.
            register: claim the name if it is free; None: if ``RELAY_REGISTER`` is 1.
            invitation_text: an invitation as a person got it; with it a name is claimed.
            files: the user's own keys.
            named: False when the program gave no name.

        Raises:
            TypeError, ValueError: a key that is none of these, or without a name.
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
        """The file of a key that was made here, and what it was then."""
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
        """False when ``at`` reads no file, so that it need not be called beside a loop."""
        return self._in_file and not names.is_guest(self._name)

    @property
    def _in_file(self) -> bool:
        """False for a key in memory alone: it is gone with the program, and so is what it saw."""
        return not isinstance(self._key, DeviceKey) or self._key.path is not None

    def at(self, server_id: str) -> Credentials:
        """Return what to prove at a server.

        Raises:
            UsageError: a key file cannot be used.
        """
        self.unused()  # that of another id: this server has not heard of it
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
                key, new = self._found(server_id, wanted)  # whoever made it has removed it
        except NoDeviceKey as error:
            return Credentials(server_id, None, False, False, b"", {}, None, error)
        # A key of a file that the program has opened itself (it has a passphrase, or --key).
        self._kept = self._in_file
        pins = files.pins(server_id) if self._kept else {}
        chain = files.chain(server_id, name) if self._kept else None
        if self._key is None and not wanted:
            files.used(server_id, name)
        first = wanted and (new or bool(self._token) or self._register is True)
        return Credentials(server_id, key, wanted, first, self._token, pins, chain)

    def unused(self) -> None:
        """Remove the file of a key that was made and that no server has accepted.

        It was on the disk before a server could hear of the key: no accepted key is ever lost.
        Another program that has taken the key from the file meanwhile has touched it: it stays.
        """
        made, self._made = self._made, None
        if made is None:
            return
        path, version = made
        with contextlib.suppress(OSError), _locked_beside(path):
            if version is not None and _version_of(path) == version:
                path.unlink()
                path.parent.rmdir()  # if it is empty: of a server that is none

    def _touched(self, path: Path, made: bool) -> bool:
        """Tell whoever has made a file that its key is used: it stays, see ``unused``.

        Returns:
            False: the file is gone.
        """
        with _locked_beside(path):
            try:
                # Later than before, whatever the clock of the file system: the touch is seen.
                now = max(time.time_ns(), path.stat().st_mtime_ns + 1)
                os.utime(path, ns=(now, now))
            except FileNotFoundError:
                return False
            except OSError:  # read only: whoever cannot touch it cannot remove it either
                pass
            if made:
                self._made = path, _version_of(path)
        return True

    def _path(self, server_id: str) -> Path | None:
        """Return where the key is; None: in no file."""
        if isinstance(self._key, DeviceKey):
            return None
        return self._files.path_of(server_id, self._name) if self._key is None else self._key

    def _found(self, server_id: str, wanted: bool) -> tuple[DeviceKey, bool]:
        """Return (the key, whether it was made now)."""
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
        """Keep what was seen of chains. What cannot be written is logged, and seen again.

        Args:
            server_id: of the server.
            seen: others' chains, and one's own.
            own_links: of one's own chain; None: as they were.
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
    """Keep the other programs that use a key file out, by a lock on its directory.

    Where there is no such lock, as on Windows, nobody is kept out.
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
    """Return what changes when somebody touches or replaces a file; None: it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
