"""The file of pinned server keys, in OpenSSH's style: ``[host]:port relay-key-v1 FINGERPRINT``.

It also contains lines about keys that follow one another (``lineage``). Parsing, matching and
pinning are separate steps. Lines unknown to this version are kept; lines are only added, never
replaced. The meaning of a mismatch is decided by ``policy``, not here.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from relay.bounded_files import make_directory
from relay.client.address import canonical_host, is_fingerprint
from relay.client.file_lock import append_whole, locked
from relay.client.trust.lineage import FOLLOWED_TYPE, NEXT_KEY_TYPE, Expected, Lineage, lineage
from relay.errors import UsageError
from relay.paths import from_variable, given, user_directory

KEY_TYPE: Final = "relay-key-v1"
PATH_VARIABLE: Final = "RELAY_KNOWN_SERVERS"
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Forty thousand servers; a larger file is neither read nor created."""
READ_LOCK_S: Final = 1.0
WRITE_LOCK_S: Final = 10.0
"""How long to wait for another program's lock, which is held for milliseconds. After that, continue
without it: lines are appended, so none is lost."""


class Place(Enum):
    """What the path of a known-servers file leads to."""

    NOTHING = "nothing yet"
    FILE = "a regular file"
    NULL_DEVICE = "the null device"


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned key."""

    host: str
    port: int
    fingerprint: str
    line: int = field(default=0, compare=False)
    """Its line number in the file, from 1; 0 if in none."""


def default_path() -> Path:
    """Return the path of the file: $RELAY_KNOWN_SERVERS, or in the user's configuration directory.

    Raises:
        UsageError: there is no home directory, or the variable cannot be expanded.
    """
    named = from_variable(PATH_VARIABLE)
    if named is not None:
        return named
    return user_directory("config", f"name a file with {PATH_VARIABLE}") / "known_servers"


def parse(text: str, path: Path) -> list[Pin]:
    """Return the pins in a file's text. Comments, empty lines and other key types are skipped.

    Raises:
        UsageError: a pin is unreadable: the user relies on it.
    """
    pins = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) < 2 or words[0].startswith("#") or words[1] != KEY_TYPE:
            continue
        host, bracket, port = words[0].removeprefix("[").rpartition("]:")
        legal = (
            bracket
            and len(words) >= 3
            and port.isascii()
            and port.isdigit()
            and len(port) <= 10
            and is_fingerprint(words[2])
        )
        if not legal:
            raise UsageError(
                f"{path}, line {number}: not of the form '[host]:port {KEY_TYPE} FINGERPRINT'; "
                "correct or remove the line"
            )
        pins.append(Pin(_name_of(host), int(port), words[2], number))
    return pins


def parse_lineage(text: str, path: Path) -> Lineage:
    """Return the lineage in a file's text: which keys follow one another.

    Raises:
        UsageError: a line is unreadable: the user relies on it.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) < 2 or words[0] != "*" or words[1] not in (NEXT_KEY_TYPE, FOLLOWED_TYPE):
            continue
        if len(words) < 4 or not (is_fingerprint(words[2]) and is_fingerprint(words[3])):
            raise UsageError(
                f"{path}, line {number}: not of the form '* {words[1]} FINGERPRINT FINGERPRINT'; "
                "correct or remove the line"
            )
        found.append(words[:4])
    return lineage(found)


def match(pins: Iterable[Pin], host: str, port: int) -> Pin | None:
    """Return the pin of a host and port. The first one counts, as in OpenSSH."""
    host = _name_of(host)
    return next((pin for pin in pins if pin.host == host and pin.port == port), None)


def _name_of(host: str) -> str:
    """Return the name by which a host is pinned: one for all of its spellings."""
    return canonical_host(host.removesuffix("."))


def format_pin(pin: Pin) -> str:
    """Return the line for a pin, without its newline."""
    return f"[{pin.host}]:{pin.port} {KEY_TYPE} {pin.fingerprint}"


class KnownServers:
    """The pins in one file, read each time: another process may pin meanwhile.

    A pin is one line appended to the existing file, under a lock and after reading it again: the
    user's arrangements stay (a link, a mount, the owner, the mode), and no other program's line is
    lost. With the null device a pin lives as long as this object. Other special files are refused.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Use a file, by default the user's own. It need not exist yet.

        Raises:
            UsageError: the path is empty, or cannot be expanded.
        """
        self._path = None if path is None else given(path)
        self._kept: list[str] = []
        """Lines that the null device does not keep."""

    @property
    def path(self) -> Path:
        """The file. The user's own is determined only on use: some callers need none, and have no
        home.

        Raises:
            UsageError: there is no home directory.
        """
        return default_path() if self._path is None else self._path

    def find(self, host: str, port: int) -> Pin | None:
        """Return the pin of a host and port, or None.

        Raises:
            UsageError: the file cannot be read, or a line in it is damaged.
        """
        text, path = self._read()
        return match(parse(text, path), host, port)

    def lineage(self) -> Lineage:
        """Return what is known about keys that follow one another.

        Raises:
            UsageError: the file cannot be read, or a line in it is damaged.
        """
        return parse_lineage(*self._read())

    def pins_key(self, fingerprint: str) -> bool:
        """Return True if a key is pinned for any host.

        Raises:
            UsageError: the file cannot be read, or a line in it is damaged.
        """
        return any(pin.fingerprint == fingerprint for pin in parse(*self._read()))

    def expected(self, host: str, port: int, fingerprint: str | None = None) -> Expected | None:
        """Return the expected key of a server, by its pin or the given fingerprint.

        None: there is neither.

        Raises:
            UsageError: the file cannot be read, or a line in it is damaged.
        """
        text, path = self._read()
        if fingerprint is None:
            pin = match(parse(text, path), host, port)
            if pin is None:
                return None
            fingerprint = pin.fingerprint
        return parse_lineage(text, path).expected(fingerprint)

    def _read(self) -> tuple[str, Path]:
        path = self.path
        try:
            if self._place(path) is not Place.FILE:
                return "\n".join(self._kept), path
            with path.open("rb") as file, locked(file.fileno(), shared=True, timeout_s=READ_LOCK_S):
                return self._text(file), path
        except (OSError, ValueError) as error:
            raise self._failed("read", error) from None

    def announced(self, old: str, new: str) -> None:
        """Record that a key has proved which one follows it, unless that one was replaced before.

        Raises:
            UsageError: the file cannot be written.
        """

        def missing(text: str) -> bool:
            known = parse_lineage(text, self.path)
            return known.following.get(old) != new and not known.replaced(new)

        self._add(f"* {NEXT_KEY_TYPE} {old} {new}", missing)

    def followed(self, old: str, new: str) -> None:
        """Record that the announced key has replaced the old one.

        Raises:
            UsageError: the file cannot be written.
        """

        def missing(text: str) -> bool:
            known = parse_lineage(text, self.path)
            return known.followed.get(old) != new and not known.replaced(new)

        self._add(f"* {FOLLOWED_TYPE} {old} {new}", missing)

    def pin(self, host: str, port: int, fingerprint: str) -> None:
        """Add a key, unless it is there. A new file gets mode 0600.

        Raises:
            UsageError: the file cannot be written, or contains another key for this host and port.
        """
        if not is_fingerprint(fingerprint):
            raise ValueError("not a fingerprint")
        new = Pin(_name_of(host), port, fingerprint)
        old: Pin | None = None

        def missing(text: str) -> bool:
            nonlocal old
            old = match(parse(text, self.path), host, port)
            return old is None

        self._add(format_pin(new), missing)
        if old is not None and old.fingerprint != fingerprint:
            raise UsageError(f"{self.path} holds another key for [{host}]:{port}; remove it first")

    def _add(self, line: str, missing: Callable[[str], bool]) -> None:
        """Add a line if it is ``missing`` from the text of the file, under a lock."""
        path = self.path
        try:
            place = self._place(path)
            if place is Place.NULL_DEVICE:
                text = "\n".join(self._kept)
                if missing(text):
                    self._check_space(text, f"\n{line}")
                    self._kept.append(line)
                return
            if place is Place.NOTHING:
                make_directory(path.parent)
            # O_APPEND: even without a lock, complete lines are added, and none is overwritten.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags, 0o600)
            with (
                os.fdopen(descriptor, "r+b", buffering=0) as file,
                locked(descriptor, shared=False, timeout_s=WRITE_LOCK_S),
            ):
                text = self._text(file)
                if missing(text):
                    newline = "" if not text or text.endswith("\n") else "\n"
                    added = f"{newline}{line}\n"
                    self._check_space(text, added)
                    append_whole(file, added.encode(), synced=True)
        except (OSError, ValueError) as error:
            raise self._failed("write", error) from None

    def _place(self, path: Path) -> Place:
        """Return what the path leads to. Raises OSError for other types."""
        try:
            kind = path.stat().st_mode
        except FileNotFoundError:
            return Place.NOTHING
        if stat.S_ISCHR(kind) and path.samefile(os.devnull):
            return Place.NULL_DEVICE
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind):  # opening it could block for ever, or have side effects
            raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, not a regular file")
        return Place.FILE

    def _text(self, file: io.FileIO | io.BufferedReader) -> str:
        data = bytearray()
        while len(data) <= FILE_BYTES_MAX and (piece := file.read(FILE_BYTES_MAX + 1)):
            data += piece
        if len(data) > FILE_BYTES_MAX:
            raise UsageError(f"{self.path} is too long for a file of pinned server keys")
        return data.decode()

    def _check_space(self, text: str, added: str) -> None:
        """A file above the limit could no longer be read, for any server."""
        if len(text.encode()) + len(added.encode()) > FILE_BYTES_MAX:
            raise UsageError(
                f"cannot add to the pinned server keys: {self.path} is full; remove lines from it"
            )

    def _failed(self, what: str, error: OSError | ValueError) -> UsageError:
        if isinstance(error, UnicodeDecodeError):
            what, why = "read", "not UTF-8"
        elif isinstance(error, OSError):
            why = error.strerror or str(error)
        else:
            why = str(error)
        return UsageError(f"cannot {what} the pinned server keys: {self.path}: {why}")
