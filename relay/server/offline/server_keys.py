"""The key files of a data directory, for operators: show them, create a next key, switch to it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relay.errors import StartError
from relay.fsync import sync_directory
from relay.server.agent.keys import load_key
from relay.server.keys.key_files import (
    KEY_FILE,
    LINEAGE_FILE,
    NEXT_KEY_FILE,
    OLD_KEY_FILE,
    create_key_file,
)
from relay.server.keys.lineage_file import prepared_lineage, read_lineage, write_lineage
from relay.server.keys.passphrase import PassphraseSource
from relay.server.privileges import as_owner_of
from relay.store.file.directory import DataDirectory
from relay.wire.identity import fingerprint, generate_private_key


class KeyState(NamedTuple):
    """The existing keys."""

    fingerprint: str
    server_id: str
    next_fingerprint: str | None
    """None: no next key."""
    next_since: float
    """When it was created, in seconds since 1970."""
    earlier: list[str]
    """Fingerprints of keys used before, including the first of all."""


class ServerKeys:
    """Keys in one data directory. For its owner or root; new files get the key's owner."""

    def __init__(self, data: Path, passphrase: str, bits: int) -> None:
        """Create.

        Args:
            data: the data directory.
            passphrase: the setting ``server.key_passphrase``.
            bits: size of a new key.
        """
        self._data = data
        self._passphrase = passphrase
        self._bits = bits

    def look(self) -> KeyState:
        """Return the existing keys.

        Raises:
            StartError: there is no key, or it cannot be used.
        """
        passphrase = PassphraseSource(self._passphrase).read()
        key = load_key(self._data / KEY_FILE, passphrase)
        if key is None:
            raise StartError(f"there is no key in {self._data}: it is made by the first start")
        own = fingerprint(key.spki)
        lineage = read_lineage(self._data / LINEAGE_FILE) or [own]
        following = load_key(self._data / NEXT_KEY_FILE, passphrase)
        return KeyState(
            own,
            lineage[0],
            None if following is None else fingerprint(following.spki),
            0.0 if following is None else (self._data / NEXT_KEY_FILE).stat().st_mtime,
            [one for one in lineage if one != own],
        )

    def make_next(self, *, replace: bool) -> str:
        """Create the next key; return its fingerprint.

        Raises:
            StartError: there is one, or it cannot be written.
        """
        self.look()
        path = self._data / NEXT_KEY_FILE
        if path.exists() and not replace:
            raise StartError(f"there is a next key already: {path}; see 'relay key new --help'")
        passphrase = PassphraseSource(self._passphrase).read()
        key = generate_private_key(secrets.token_bytes, self._bits)
        owner = (self._data / KEY_FILE).stat()
        create_key_file(path, key.to_pem(passphrase), owner=owner, replace=replace)
        return fingerprint(key.spki)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Prevent the relay from starting meanwhile.

        Raises:
            StartError: it is running.
        """
        with as_owner_of(self._data):
            lock = DataDirectory.existing(self._data).lock()
        try:
            yield
        finally:
            lock.close()

    def rotate(self, expected: str) -> None:
        """Replace the current key by the next key. Call it with the directory locked.

        The lock keeps the relay from starting; ``make_next`` does not take it. So the next key may
        have been replaced, by one that no client knows, since the user was asked.

        Raises:
            StartError: the next key is another one, or a file cannot be written.
        """
        state = self.look()
        if state.next_fingerprint != expected:
            raise StartError("the next key was replaced meanwhile: nothing was changed")
        path = self._data / KEY_FILE
        if path.is_symlink():
            raise StartError(
                f"{path} is a symbolic link to {path.readlink()}: put the content of "
                f"{NEXT_KEY_FILE} there yourself, remove {NEXT_KEY_FILE}, and add "
                f"{expected} to {LINEAGE_FILE} as the last line"
            )
        owner, file = path.stat(), self._data / LINEAGE_FILE
        lineage = read_lineage(file)
        if not lineage:
            # Otherwise a start after half of the exchange would make the new key the server's id.
            lineage = [state.fingerprint]
            write_lineage(file, lineage, owner=owner)
        # Its content is on the disk first, which may be full: nothing is changed then.
        with prepared_lineage(file, [*lineage, expected], owner=owner) as publish:
            self._exchange(path)
            publish()

    def _exchange(self, path: Path) -> None:
        """Put the next key in the place of the current one, which is kept as the old one."""
        old = self._data / OLD_KEY_FILE
        try:
            old.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # some file systems have no hard links
                os.link(path, old)
            # The key first: a start that finds the lineage one key short reports what to do.
            (self._data / NEXT_KEY_FILE).rename(path)
            sync_directory(self._data)
        except OSError as error:
            raise StartError(f"{path} cannot be replaced: {error.strerror}") from None
