"""Short names for addresses, in the user's settings: lines of ``NAME ADDRESS``.

Another name is a host, so an alias has only letters, digits, ``_`` and ``-``: nothing with a dot or
a colon can be taken for one.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from relay.client.address import parse_address
from relay.client.file_lock import locked
from relay.errors import UsageError
from relay.paths import followed, user_directory

FILE_BYTES_MAX: Final = 1024 * 1024
LOCK_S: Final = 10.0
"""How long to wait for another program's lock, which is held for milliseconds."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TAKEN: Final = frozenset({"localhost"})


def is_alias(text: str) -> bool:
    """True for what may be the name of an alias."""
    return _NAME.fullmatch(text) is not None and text not in _TAKEN


class Aliases:
    """The aliases in one file, read anew each time."""

    def __init__(self, path: Path) -> None:
        """Use a file. It need not exist yet."""
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
            with self.path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
            text = data.decode()
        except FileNotFoundError:
            return {}
        except UnicodeDecodeError:
            raise UsageError(f"cannot read the aliases: {self.path}: not UTF-8") from None
        except OSError as error:
            raise UsageError(f"cannot read the aliases: {self.path}: {error.strerror}") from None
        if len(data) > FILE_BYTES_MAX:
            raise UsageError(f"{self.path} is too long for a file of aliases")
        found = {}
        for number, line in enumerate(text.splitlines(), 1):
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
            UsageError: the name, the address, or the file; or the alias has another address.
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
                self._rewrite([*self._lines(), f"{name} {checked}\n"])

    def remove(self, name: str) -> None:
        """Remove an alias.

        Raises:
            UsageError: there is none of this name, or the file cannot be written.
        """
        with self._changing():
            if name not in self.all():
                raise UsageError(f"there is no alias {name!r}; relay alias list shows them")
            self._rewrite([line for line in self._lines() if line.split()[:1] != [name]])

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one program after the other read and write the file."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (
                self.path.with_suffix(".lock").open("ab") as lock,
                locked(lock.fileno(), shared=False, timeout_s=LOCK_S),
            ):
                yield
        except OSError as error:
            raise UsageError(f"cannot write the aliases: {self.path}: {error.strerror}") from None

    def _lines(self) -> list[str]:
        """Return the file's lines as they are: comments stay."""
        if not self.path.exists():
            return []
        return [f"{line}\n" for line in self.path.read_text(encoding="utf-8").splitlines()]

    def _rewrite(self, lines: list[str]) -> None:
        """Replace the file as a whole: a crash leaves the old one or the new one."""
        place = followed(self.path)  # a link stays a link
        with tempfile.NamedTemporaryFile(
            "w", dir=place.parent, prefix=".aliases", encoding="utf-8", delete=False
        ) as file:
            try:
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
                file.close()
                Path(file.name).replace(place)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
