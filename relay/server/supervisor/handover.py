"""The data that a supervisor passes to its successor: the two may be of different versions.

The next one is a child of the present one. They talk over a socket pair, a JSON object a message.
First comes a ``Handover``; the descriptors in it are inherited. Then the next one reports that it
is ready, and is told of each ``Step``.

Worker by worker: the next one is told to ``lead`` (its own workers begin beside those that run,
and these leave one after the other), shows that it does (``leads``), is told who has ``exited``,
may have one killed (``kill``), and reports that all are its own (``finished``). Then come the
steps.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any, Final

import msgspec

FORMAT: Final = 1
"""Of the messages. It changes when a version cannot take over from another one any more."""
ROLLING_FORMAT: Final = 1
"""Of what is said, and done, worker by worker."""
VARIABLE: Final = "RELAY_HANDOVER"
"""Of the next one's environment: the number of its end, and the process that it comes from."""
BYTES_MAX: Final = 65_536


class Handover(msgspec.Struct, frozen=True):
    """All of it. A version that knows more fields gives each of them a default."""

    format: int
    data_format: int
    """Of the partitions' files, which an upgrade does not change."""
    generation: int
    """Generations of the next one's processes are greater: so their sockets have names of their
    own."""
    fingerprint: str
    """Of the server's key."""
    fixed: dict[str, str]
    """Settings that the next one must have as well, as TOML."""
    listeners: list[int]
    listeners_kept: bool
    """They are a service manager's, and stay when the server ends."""
    control: int | None
    control_kept: bool
    runtime: str
    runtime_lock: int
    passphrase: int
    """-1: it is in no descriptor."""
    parent_line: int
    """To the process that was started first, if it has stayed; else -1."""
    stderr: int
    """Of the server: descriptor 2 is a pipe until the next one runs, for what keeps it from it."""
    board: int = -1
    """The scoreboard of the workers. -1: of a version that does not share it."""
    formats: dict[str, str] = {}
    """What must be the same in the next one if workers of both are to run side by side."""
    tickets: int = -1
    """Which tickets were used. -1: it cannot be handed over, as the next ones."""
    ticket_keys: int = -1
    """What opens them."""

    @property
    def descriptors(self) -> list[int]:
        """All that are inherited."""
        found = [*self.listeners, self.control, self.runtime_lock, self.passphrase, self.stderr]
        found += [self.parent_line, self.board, self.tickets, self.ticket_keys]
        return [fd for fd in found if fd is not None and fd >= 0]


def tell(line: socket.socket, **message: object) -> None:
    """Send a message. It is lost if nobody is there: whoever waits for it sees that."""
    try:
        line.send(json.dumps(message).encode())
    except OSError:
        return


def heard(line: socket.socket) -> list[dict[str, Any]]:
    """Return the messages that have come to a non-blocking end; what is none is left out.

    Raises:
        EOFError: the other end is closed, and there was nothing more.
    """
    messages: list[dict[str, Any]] = []
    while True:
        try:
            data = line.recv(BYTES_MAX)
        except BlockingIOError:
            return messages
        except OSError:
            data = b""
        if not data:
            if messages:
                return messages  # the end is seen by the next call
            raise EOFError
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(data)
            if isinstance(message, dict):
                messages.append(message)
