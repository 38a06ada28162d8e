"""The user's own device keys, one file for each server and name, and pins of other accounts.

    DIRECTORY/SERVER-ID/NAME.key     the key of a name at a server; with ".ended" behind it: one
                                     that is no longer valid, which nothing reads
    DIRECTORY/SERVER-ID/NAME.chain   the links of its device chain, in hexadecimal
    DIRECTORY/SERVER-ID/pins         what was seen of other accounts' chains

The server id is the fingerprint of the server's (first) key.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from relay.bounded_files import make_directory, open_regular
from relay.chat import names
from relay.chat.accounts import links
from relay.chat.accounts.chain import LINKS_MAX, Pin
from relay.client.address import is_fingerprint
from relay.client.devices.device_key import DeviceKey, PassphraseNeeded, publish, write_private
from relay.client.file_lock import append_whole, locked
from relay.errors import UsageError
from relay.paths import from_variable, given, is_there, user_directory

VARIABLE: Final = "RELAY_KEYS"
PINS_BYTES_MAX: Final = 64 * 1024 * 1024
"""A larger file is neither read nor created. At half of it, obsolete lines are removed."""
LINE_BYTES_MAX: Final = 512
"""Longer than any line of ``pins``."""
_PIN_LINE: Final = re.compile(
    rb"(?P<name>[!-~]+) (?P<root>(?:[0-9a-fA-F]{2})+) (?P<number>[0-9]{1,18}) "
    rb"(?P<head>(?:[0-9a-fA-F]{2})+)\s*"
)
CHAIN_CHARS_MAX: Final = LINKS_MAX * (2 * links.LINK_BYTES_MAX + 1)
LOCK_S: Final = 10.0
ENDED: Final = ".ended"
"""Behind the name of a key's file that is no longer valid."""
AskPassphrase = Callable[[Path], str]
"""Called with the path of a key file that has a passphrase; returns the passphrase."""


def default_directory() -> Path:
    """Return the directory of keys: $RELAY_KEYS, or ``keys`` in the user's data directory.

    Raises:
        UsageError: there is no home directory, or the variable cannot be expanded.
    """
    named = from_variable(VARIABLE)
    if named is not None:
        return named
    return user_directory("data", f"name a directory with {VARIABLE}") / "keys"


class KeyFiles:
    """Keys and pins in one directory."""

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        ask_passphrase: AskPassphrase | None = None,
    ) -> None:
        """Use a directory, by default the user's own. It need not exist yet.

        Args:
            directory: None: the user's own.
            ask_passphrase: for key files that have one; None: such a file is an error.

        Raises:
            UsageError: the path is empty, or cannot be expanded.
        """
        self._directory = None if directory is None else given(directory)
        self.ask_passphrase = ask_passphrase
        self.made: set[Path] = set()
        """The files of keys that this object has created."""

    @property
    def directory(self) -> Path:
        """The directory.

        Raises:
            UsageError: there is no home directory.
        """
        return default_directory() if self._directory is None else self._directory

    def path_of(self, server_id: str, name: str) -> Path:
        """Return where the key of a name at a server is or would be."""
        return self.directory / server_id / f"{name}.key"

    def find(self, server_id: str, name: str) -> DeviceKey | None:
        """Return the key of a name at a server; None: there is none.

        Raises:
            UsageError: it cannot be used.
        """
        path = self.path_of(server_id, name)
        return self.load(path) if is_there(path) else None

    def load(self, path: Path) -> DeviceKey:
        """Return the key in a file, asking for its passphrase if it has one.

        Raises:
            UsageError: it cannot be used.
        """
        try:
            return DeviceKey.load(path)
        except PassphraseNeeded:
            if self.ask_passphrase is None:
                raise
            return DeviceKey.load(path, self.ask_passphrase(path))

    def create(self, server_id: str, name: str, passphrase: str | None = None) -> DeviceKey:
        """Create a key and its file, which is on the disk before the key is used.

        Two programs that do this at once get the same key.

        Raises:
            UsageError: it cannot be written.
        """
        return self.make(self.path_of(server_id, name), name, passphrase)

    def make(self, path: Path, name: str, passphrase: str | None = None) -> DeviceKey:
        """Create a key for a name in this file, as ``create`` does."""
        key = DeviceKey.generate()
        key.name = name
        try:
            key.save(path, passphrase)
        except UsageError:
            if not is_there(path):
                raise
            return self.load(path)
        self.made.add(path)
        return key

    def names(self, server_id: str) -> list[str]:
        """Return the names that have a key at a server, the most recently used first."""
        try:
            found = [
                (path.stat().st_mtime_ns, path.stem)
                for path in (self.directory / server_id).glob("*.key")
                if names.is_handle(path.stem)
            ]
        except (OSError, UsageError):
            return []
        return [name for _, name in sorted(found, reverse=True)]

    def servers(self) -> list[str]:
        """Return the ids of the servers for which there are keys."""
        try:
            found = [path.parent.name for path in self.directory.glob("*/*.key")]
        except (OSError, UsageError):
            return []
        return sorted({name for name in found if is_fingerprint(name)})

    def used(self, server_id: str, name: str) -> None:
        """Record that a name is used now: it is the default next time."""
        with contextlib.suppress(OSError):
            os.utime(self.path_of(server_id, name))

    def follow(self, fingerprint: str, server_id: str) -> None:
        """Move what was stored for a server before its id was known.

        A key may be made before the first connection: for a passphrase, or to be approved. Then the
        only known name of the server is the key in its address. A file stays where it is if there
        is one with its name under the id, which another program has stored there.

        Raises:
            UsageError: something cannot be moved.
        """
        try:
            source, home = self.directory / fingerprint, self.directory / server_id
        except UsageError:
            return  # nothing is stored without a directory
        try:
            # Not what is being written.
            paths = [path for path in source.iterdir() if not path.name.startswith(".")]
            if paths:
                make_directory(home)
            for path in paths:
                _move(path, home / path.name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot rename {source}: {error.strerror or error}") from None
        with contextlib.suppress(OSError):  # it is not empty
            source.rmdir()

    def ended(self, server_id: str, name: str) -> Path | None:
        """Put a key aside that is no longer valid: nothing takes it by itself from then on.

        Returns:
            Where it is now; None: there was none.

        Raises:
            UsageError: it stays where it is.
        """
        path = self.path_of(server_id, name)
        aside = path.with_name(f"{path.name}{ENDED}")
        try:
            path.replace(aside)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"cannot rename {path}: {error.strerror or error}") from None
        return aside

    # --- chains and pins ------------------------------------------------------------------------
    def chain(self, server_id: str, name: str) -> list[bytes]:
        """Return the links of this account's chain, as last seen."""
        try:
            path = self.directory / server_id / f"{name}.chain"
            with os.fdopen(open_regular(path, os.O_RDONLY), "r", encoding="ascii") as file:
                return [bytes.fromhex(line) for line in file.read(CHAIN_CHARS_MAX).split()]
        except (OSError, ValueError, UsageError):
            return []

    def keep_chain(self, server_id: str, name: str, packed: Iterable[bytes]) -> None:
        """Keep the links of this account's chain, to return them to a server that lost them."""
        path = self.directory / server_id / f"{name}.chain"
        text = "".join(f"{link.hex()}\n" for link in packed)
        with contextlib.suppress(UsageError):
            write_private(path, text.encode("ascii"), replace=True)

    def pins(self, server_id: str) -> dict[str, Pin]:
        """Return the pinned chain of each name at a server. The last line of a name counts.

        An incomplete last line may be left by a program that was killed, or be in the process of
        being written: it is ignored, and ``pin`` removes it.

        Raises:
            UsageError: the file cannot be read, or is damaged: the user relies on it.
        """
        path = self.directory / server_id / "pins"
        try:
            lines = _read_pins(path)
            found = {
                name: pin
                for name, pin in lines
                if len(pin.root) == len(pin.head) == links.HASH_BYTES
            }
            if path.stat().st_size > PINS_BYTES_MAX // 2 and len(lines) >= 2 * len(found):
                _compact(path)
            return found
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}") from None

    def pin(self, server_id: str, name: str, pin: Pin) -> None:
        """Add what was seen of a chain. One line is appended, under a lock, so none is lost.

        Raises:
            UsageError: it cannot be written, or the file is full.
        """
        path = self.directory / server_id / "pins"
        line = _line(name, pin)
        try:
            make_directory(path.parent)
            with _opened(path) as (file, held):
                added = _mended(file, may_cut=held) + line
                if os.fstat(file.fileno()).st_size + len(added) > PINS_BYTES_MAX:
                    raise UsageError(f"cannot add to {path}: it is full")
                append_whole(file, added, synced=False)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def _move(path: Path, target: Path) -> None:
    """Rename a file, unless there is one with the new name. Another program may do the same now."""
    try:
        publish(path, target)
    except FileNotFoundError:
        return
    except FileExistsError:
        try:
            if not path.samefile(target):  # otherwise it has two names for a moment
                return
        except FileNotFoundError:
            return
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[io.FileIO, bool]]:
    """Open a file of pins for appending, under its lock; yield it, and whether the lock is held.

    While waiting for the lock, the file may have been replaced by ``_compact``.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    # not for ever: some file systems have no stable inode numbers
    for last in (False, False, True):
        descriptor = open_regular(path, flags, 0o600)
        with (
            os.fdopen(descriptor, "r+b", buffering=0) as file,
            locked(descriptor, shared=False, timeout_s=LOCK_S) as held,
        ):
            if last or not held or _is_at(path, descriptor):
                yield file, held
                return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _read_pins(path: Path) -> list[tuple[str, Pin]]:
    """Return the content of a file of pins.

    Raises:
        OSError, UsageError: it cannot be read, or is damaged.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        data = file.read(PINS_BYTES_MAX + 1)
    if len(data) > PINS_BYTES_MAX:
        raise UsageError(f"{path} is too long for a file of pins")
    found = []
    *lines, last = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if (pin := _pin(line)) is None:
            raise _damaged(path, number)
        found.append(pin)
    if (pin := _pin(last)) is not None:
        found.append(pin)
    elif len(last) > LINE_BYTES_MAX:  # not an incomplete line: no line is that long
        raise _damaged(path, len(lines) + 1)
    return found


def _damaged(path: Path, number: int) -> UsageError:
    return UsageError(
        f"{path}, line {number}: not of the form 'NAME ROOT NUMBER HEAD'; correct or remove "
        "the line"
    )


def _compact(path: Path) -> None:
    """Keep only the last line of each name: a new file replaces the old one.

    Without the lock, or if it cannot be written, the file stays as it is.
    """
    with contextlib.suppress(OSError, UsageError), _opened(path) as (_, held):
        if held:
            # Also by the kind of hash: kinds unknown to this version are left alone.
            last = {(name, len(pin.root), len(pin.head)): pin for name, pin in _read_pins(path)}
            lines = b"".join(_line(name, pin) for (name, _, _), pin in last.items())
            write_private(path, lines, replace=True)


def _line(name: str, pin: Pin) -> bytes:
    return f"{name} {pin.root.hex()} {pin.number} {pin.head.hex()}\n".encode()


def _pin(line: bytes) -> tuple[str, Pin] | None:
    """Parse a line of a file of pins; None: it is not one."""
    found = _PIN_LINE.fullmatch(line)
    if found is None or len(line) > LINE_BYTES_MAX:
        return None
    name, root, number, head = found.group("name", "root", "number", "head")
    pin = Pin(bytes.fromhex(root.decode()), int(number), bytes.fromhex(head.decode()))
    return name.decode(), pin


def _mended(file: io.FileIO, *, may_cut: bool) -> bytes:
    """Return what is missing at the end of a file of pins; an incomplete line is removed.

    ``may_cut``: no other program is writing, so an incomplete line is garbage.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - LINE_BYTES_MAX - 1))
    last = file.read(LINE_BYTES_MAX + 1).rpartition(b"\n")[2]
    if not last:
        return b""
    found = _pin(last)
    # Half of a hash is a line, too, but no kind of hash.
    whole = found is not None and len(found[1].root) == len(found[1].head)
    if may_cut and not whole and len(last) <= LINE_BYTES_MAX:
        os.ftruncate(file.fileno(), size - len(last))
        return b""
    return b"\n"
