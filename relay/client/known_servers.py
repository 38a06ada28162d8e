"""The file of pinned server keys. OpenSSH-shaped lines: ``[host]:port relay-key-v1 FINGERPRINT``.

Parsing, matching and pinning are separate steps. A line that this version does not understand is
kept as it is; a pin is added nowhere but in ``pin``, and never replaced. What a mismatch means is
decided by ``trust``, not here.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from relay.client.address import is_fingerprint
from relay.errors import UsageError
from relay.paths import expanded, user_directory

KEY_TYPE: Final = "relay-key-v1"
PATH_VARIABLE: Final = "RELAY_KNOWN_SERVERS"
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Forty thousand servers; more is not a file of ours."""


class Pin(NamedTuple):
    """One pinned key."""

    host: str
    port: int
    fingerprint: str


def default_path() -> Path:
    """Return where the file is: $RELAY_KNOWN_SERVERS, or in the user's configuration directory.

    Raises:
        UsageError: there is no home directory, or the variable cannot be expanded.
    """
    named = os.environ.get(PATH_VARIABLE, "")
    if named.strip():
        try:
            return expanded(named)
        except UsageError as error:
            raise UsageError(f"{PATH_VARIABLE}: {error}") from None
    return user_directory("config", f"name a file with {PATH_VARIABLE}") / "known_servers"


def parse(text: str, path: Path) -> list[Pin]:
    """Return the pins of a file's text. Comments, empty lines and other key types are passed over.

    Raises:
        UsageError: a pin that cannot be read: whoever relied on it must know.
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
            and is_fingerprint(words[2])
        )
        if not legal:
            raise UsageError(
                f"{path}, line {number}: not of the form '[host]:port {KEY_TYPE} FINGERPRINT'; "
                "correct or remove the line"
            )
        pins.append(Pin(host.lower(), int(port), words[2]))
    return pins


def match(pins: Iterable[Pin], host: str, port: int) -> Pin | None:
    """Return the pin of a host and port. The first one counts, as in OpenSSH."""
    host = host.lower()
    return next((pin for pin in pins if pin.host == host and pin.port == port), None)


def format_pin(pin: Pin) -> str:
    """Return the line of a pin, without its newline."""
    return f"[{pin.host}]:{pin.port} {KEY_TYPE} {pin.fingerprint}"


class KnownServers:
    """The pins in one file. Nothing is held in memory: another process may pin meanwhile."""

    def __init__(self, path: Path | None = None) -> None:
        """Use a file, by default the user's own. It need not exist yet."""
        self._path = path

    @property
    def path(self) -> Path:
        """The file. The user's own is looked for only here: some need none, and have no home.

        Raises:
            UsageError: there is no home directory.
        """
        return default_path() if self._path is None else self._path

    def find(self, host: str, port: int) -> Pin | None:
        """Return the pin of a host and port, or None.

        Raises:
            UsageError: the file cannot be read, or a line in it is damaged.
        """
        return match(parse(self._read(), self.path), host, port)

    def pin(self, host: str, port: int, fingerprint: str) -> None:
        """Add a key, unless it is there. The file (0600) is replaced in one step.

        Raises:
            UsageError: the file cannot be written, or holds another key for this host and port.
        """
        if not is_fingerprint(fingerprint):
            raise ValueError("not a fingerprint")
        text = self._read()
        new = Pin(host.lower(), port, fingerprint)
        old = match(parse(text, self.path), host, port)
        if old == new:
            return
        if old is not None:
            raise UsageError(f"{self.path} holds another key for [{host}]:{port}; remove it first")
        if text and not text.endswith("\n"):
            text += "\n"
        self._replace(f"{text}{format_pin(new)}\n")

    def _read(self) -> str:
        try:
            with self.path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
            if len(data) > FILE_BYTES_MAX:
                raise UsageError(f"{self.path} is too long for a file of pinned server keys")
            return data.decode()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise UsageError(f"cannot read the pinned server keys: {self.path}: {why}") from None

    def _replace(self, text: str) -> None:
        temporary = ""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # mkstemp makes the file 0600 from its first moment.
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".known_servers-")
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
            raise UsageError(
                f"cannot write the pinned server keys: {self.path}: {error.strerror}"
            ) from None
