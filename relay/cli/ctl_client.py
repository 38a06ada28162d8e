"""Where a running relay's control socket is, and asking it."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relay import configuration
from relay.cli.exits import CommandError
from relay.server.context import CTL_SOCKET
from relay.server.supervisor.runtime_directory import find
from relay.settings import Settings

ANSWER_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Server:
    """A relay of this machine, by its control socket."""

    path: Path

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Ask, and return the answer.

        Raises:
            CommandError: nobody answers there, or the answer is a refusal.
        """
        question = {"do": do, **{key: value for key, value in arguments.items() if value}}
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_S)
                sock.connect(os.fspath(self.path))
                sock.sendall(json.dumps(question).encode() + b"\n")
                with sock.makefile("rb") as answers:
                    line = answers.readline(ANSWER_BYTES_MAX)
        except TimeoutError:
            raise CommandError(f"{self.path}: no answer within {ANSWER_S:.0f} s") from None
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise CommandError(
                f"no relay runs there: {self.path}; name its data directory with --data, or its "
                "settings with --config"
            ) from None
        except OSError as error:
            raise CommandError(
                f"{self.path}: {error.strerror or error}; only root and the relay's user may ask"
            ) from None
        if not line.endswith(b"\n"):
            raise CommandError(f"{self.path}: no answer: only root and the relay's user may ask")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CommandError(str(answer["error"]))
        found: dict[str, Any] = answer["ok"]
        return found


def settings(data: str | None, config: Path | None) -> Settings:
    """Return the settings of the relay that is meant, as ``relay serve`` finds them.

    Raises:
        UsageError: they are wrong.
    """
    return configuration.load({"store.data": data}, os.environ, config).settings


def server_of(found: Settings) -> Server:
    """Return the relay that runs with these settings, if it does."""
    return Server(find(found.server.runtime, directory_of(found)) / CTL_SOCKET)


def directory_of(found: Settings) -> Path:
    """Return the data directory of these settings."""
    return Path(found.store.data).absolute()


def locate(sock: Path | None, data: str | None, config: Path | None) -> Server:
    """Return the relay that is meant: by its socket, or as ``relay serve`` finds its directories.

    Raises:
        UsageError: the settings are wrong.
    """
    return Server(sock) if sock is not None else server_of(settings(data, config))


def data_directory(data: str | None, config: Path | None) -> Path:
    """Return the data directory that is meant, as ``relay serve`` finds it.

    Raises:
        UsageError: the settings are wrong.
    """
    return directory_of(settings(data, config))
