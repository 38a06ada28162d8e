"""Finds a running relay's control socket, and sends requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relay import configuration
from relay.cli.process.exits import CommandError
from relay.refused_calls import is_refused
from relay.server.context import CTL_SOCKET
from relay.server.supervisor.runtime_directory import find
from relay.settings import Settings
from relay.store.file.directory import LOCK_FILE, is_data_directory, user_of

ANSWER_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


class _Answer(dict[str, Any]):
    """An object of an answer, which a relay of another version may have made."""

    def __missing__(self, key: str) -> object:
        raise CommandError(
            f"the answer has no {key!r}: use the relay command of the version that runs"
        )


@dataclass(frozen=True, slots=True)
class Server:
    """A relay on this machine, by its control socket."""

    path: Path
    data: Path | None = None
    """Its data directory; None: the socket itself was named."""

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Ask, and return the answer.

        Raises:
            CommandError: there is no answer, or a refusal.
            OSError: the system refuses a call that asking needs.
        """
        question = {"do": do, **{key: value for key, value in arguments.items() if value}}
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_S)
                sock.connect(os.fspath(self.path))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    sock.sendall(json.dumps(question).encode() + b"\n")
                line = b""
                # A process that has ended may have sent the reason before.
                with contextlib.suppress(ConnectionResetError), sock.makefile("rb") as answers:
                    line = answers.readline(ANSWER_BYTES_MAX)
        except TimeoutError:
            raise CommandError(f"{self.path}: no answer within {ANSWER_S:.0f} s") from None
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise CommandError(self._why_nobody_answers()) from None
        except OSError as error:
            if is_refused(error):  # to ask again would not help
                raise OSError(error.errno, f"{self.path}: {error.strerror}") from None
            who = "; only root and the relay's user may ask"
            raise CommandError(
                f"{self.path}: {error.strerror or error}"
                f"{who if isinstance(error, PermissionError) else ''}"
            ) from None
        if not line.endswith(b"\n"):
            raise CommandError(
                f"{self.path}: it ended without an answer, as the control process does when it is"
                " replaced: try again; it is not known whether it was done"
            )
        return self._read(line)

    def has_ended(self) -> bool:
        """Return True if no process holds its data directory; False if that is not known."""
        return self.data is not None and _is_unused(self.data)

    def _read(self, line: bytes) -> dict[str, Any]:
        """Return what an answer holds. Another program's socket may have been named."""
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line, object_hook=_Answer)
            if isinstance(answer, dict) and "error" in answer:
                raise CommandError(str(answer["error"]))
            if isinstance(answer, dict) and isinstance(answer.get("ok"), dict):
                found: dict[str, Any] = answer["ok"]
                return found
        raise CommandError(f"{self.path}: what answers there is not a relay's control process")

    def _why_nobody_answers(self) -> str:
        if self.data is None:
            return f"no relay answers at {self.path}; without --socket it is found by its --data"
        named = "name its data directory with --data, or its settings with --config"
        with contextlib.suppress(OSError):  # we may not look at it
            if not self.data.exists():
                return f"no relay runs there: there is no directory {self.data}; {named}"
            if not is_data_directory(self.data):
                return f"no relay runs there: {self.data} is not a relay's data directory; {named}"
            if (pid := user_of(self.data)) is not None:
                process = f"process {pid}" if pid else "in a container"
                return (
                    f"the relay of {self.data} runs ({process}), but nobody answers at "
                    f"{self.path}: try again in a moment; its log tells more"
                )
        return f"no relay runs with the data directory {self.data}; if it is another, {named}"


def settings(data: str | None, config: Path | None) -> Settings:
    """Return the settings of the relay, found as by ``relay serve``.

    Raises:
        UsageError: they are wrong.
    """
    return configuration.load({"store.data": data}, os.environ, config).settings


def server_of(found: Settings) -> Server:
    """Return the relay that runs with these settings."""
    data = directory_of(found)
    # The record in an unused directory may have been copied with the data of a running relay.
    runtime = data / "run" if _is_unused(data) else find(found.server.runtime, data)
    return Server(runtime / CTL_SOCKET, data)


def _is_unused(data: Path) -> bool:
    """Return True if no relay has used a data directory; False if that is not known."""
    try:
        return (data / LOCK_FILE).exists() and user_of(data) is None
    except OSError:
        return False


def directory_of(found: Settings) -> Path:
    """Return the data directory of these settings."""
    return Path(found.store.data).absolute()


def locate(sock: Path | None, data: str | None, config: Path | None) -> Server:
    """Return the relay, by its socket, or as ``relay serve`` finds its directories.

    Raises:
        UsageError: the settings are wrong.
    """
    return Server(sock) if sock is not None else server_of(settings(data, config))


def data_directory(data: str | None, config: Path | None) -> Path:
    """Return the data directory, as ``relay serve`` finds it.

    Raises:
        UsageError: the settings are wrong.
    """
    return directory_of(settings(data, config))


@dataclass(slots=True)
class Which:
    """Selects a relay on this machine by the options; calling it finds the relay."""

    data: str | None
    config: Path | None
    sock: Path | None

    def __call__(self) -> Server:
        """See ``locate``."""
        return locate(self.sock, self.data, self.config)
