"""Short names for addresses, in the user's settings: lines of ``NAME ADDRESS``.

Any other name is a host, so an alias consists of letters, digits, ``_`` and ``-``: nothing with a
dot or a colon can be mistaken for one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from relay.bounded_files import make_directory, open_regular
from relay.client.address import parse_address
from relay.client.file_lock import locked
from relay.errors import UsageError
from relay.fsync import sync_file
from relay.paths import user_directory

FILE_BYTES_MAX: Final = 1024 * 1024
LOCK_S: Final = 10.0
"""How long to wait for another program's lock, which is held for milliseconds."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TAKEN: Final = frozenset({"localhost"})


def is_alias(text: str) -> bool:
    """Return True if the text may be the name of an alias."""
    return _NAME.fullmatch(text) is not None and text not in _TAKEN


class Aliases:
    """The aliases in one file, read each time."""

    def __init__(self, path: Path) -> None:
        """Use a file, which need not exist yet."""
        self.path = path

    @classmethod
    def of_user(cls) -> Aliases:
        """Return the user's own.

        Raises:
            UsageError: there is no home directory.
        """
        return cls(user_directory("config", "set XDG_CONFIG_HOME") / "aliases")

    def all(self) -> dict[str, str]:
        """Return the addresses by their names.

        Raises:
            UsageError: the file cannot be read, or a line in it is not of this form.
        """
        try:
            if self.path.exists() and self.path.samefile(os.devnull):
                return {}
            with os.fdopen(open_regular(self.path, os.O_RDONLY), "rb") as file:
                lines = self._text(file).decode().split("\n")
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError:
            raise UsageError(f"cannot read the aliases: {self.path}: not UTF-8") from None
        except OSError as error:
            raise UsageError(f"cannot read the aliases: {self.path}: {error.strerror}") from None
        found = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not is_alias(words[0]):
                raise UsageError(
                    f"{self.path}, line {number}: not of the form 'NAME ADDRESS';"
                    " correct or remove the line"
                )
            found[words[0]] = words[1]
        return found

    def add(self, name: str, address: str) -> None:
        """Add an alias.

        Raises:
            UsageError: the name, the address, or the file; or the alias exists with another
                address.
        """
        if not is_alias(name):
            raise UsageError(
                f"invalid alias {name!r}: use up to 32 of a-z, 0-9, '_' and '-', beginning with a"
                " letter or digit"
            )
        checked = str(parse_address(address))
        with self._changing():
            found = self.all()
            if found.get(name, checked) != checked:
                raise UsageError(
                    f"the alias {name!r} is {found[name]};"
                    f" remove it first: relay alias remove {name}"
                )
            if name not in found:
                self._append(f"{name} {checked}\n")

    def remove(self, name: str) -> None:
        """Remove an alias.

        Raises:
            UsageError: there is none of this name, or the file cannot be written.
        """
        with self._changing():
            if name not in self.all():
                raise UsageError(f"there is no alias {name!r}; relay alias list shows them")
            self._drop(name)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one program at a time read and write the file."""
        try:
            make_directory(self.path.parent)
            flags = os.O_WRONLY | os.O_CREAT
            with (
                os.fdopen(open_regular(self.path.with_suffix(".lock"), flags), "ab") as lock,
                locked(lock.fileno(), shared=False, timeout_s=LOCK_S),
            ):
                yield
        except OSError as error:
            raise UsageError(f"cannot write the aliases: {self.path}: {error.strerror}") from None

    def _text(self, file: BinaryIO) -> bytes:
        data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise UsageError(f"{self.path} is too long for a file of aliases")
        return data

    def _append(self, line: str) -> None:
        """Add a line atomically."""
        flags = os.O_RDWR | os.O_CREAT
        with os.fdopen(open_regular(self.path, flags), "r+b", buffering=0) as file:
            text = self._text(file)
            newline = b"" if not text or text.endswith(b"\n") else b"\n"
            data = newline + line.encode()
            try:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                sync_file(file.fileno(), self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(len(text))
                raise

    def _drop(self, name: str) -> None:
        """Remove the lines of an alias in place: links, mounts and mode of the file stay.

        The end that is cut off is blanked first, so that a crash leaves no incomplete line.
        """
        with os.fdopen(open_regular(self.path, os.O_RDWR), "r+b", buffering=0) as file:
            text = self._text(file)
            lines = text.decode().split("\n")  # as in ``all``
            left = "\n".join(line for line in lines if line.split()[:1] != [name]).encode()
            file.seek(0)
            file.write(left.ljust(len(text), b"\n"))
            file.truncate(len(left))
            sync_file(file.fileno(), self.path)
