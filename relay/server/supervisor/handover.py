"""The data that a supervisor passes to its successor, which may be of another version.

The next supervisor is a child of the present one. They communicate over a socket pair, with one
JSON object per message. The first message is a ``Handover``; the descriptors in it are inherited,
or come with it: those of a field that an earlier version may not know (``SHARED``). A version that
does not know them does not take them, and none of its processes has them by accident. Then the next
one reports that it is ready, and is told of each ``Step``; before that also that the settings were
read again (``reload``).

In a rolling upgrade the next one is first told to ``lead``: its own workers start beside the
running ones, which then leave one after the other. It shows that it is alive (``leads``), is told
which workers have ``exited`` and that all are to ``stop``, may have one killed (``kill``), and
reports when all workers are its own (``finished``). Then the steps follow.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from relay.errors import StartError

FORMAT: Final = 1
"""Of the messages. Changed when a version can no longer take over from an earlier one."""
ROLLING_FORMAT: Final = 1
"""Of the messages and the procedure of a rolling upgrade."""
VARIABLE: Final = "RELAY_HANDOVER"
"""In the environment of the next supervisor: the number of its socket, and its parent's process id.
"""
BYTES_MAX: Final = 65_536
SHARED: Final = ("board", "tickets", "ticket_keys")
"""Fields with descriptors that are sent with the message (SCM_RIGHTS). They are memory with secrets
and the state of workers. New fields with descriptors belong here."""
SHARED_MAX: Final = 64
"""Descriptors that a later version may send; those of fields unknown here are closed."""


class Handover(msgspec.Struct, frozen=True):
    """The handover message. A version with additional fields gives each a default."""

    format: int
    data_format: int
    """Of the partitions' files, which an upgrade does not change."""
    generation: int
    """Generations of the next supervisor's processes are greater, so their sockets have other
    names."""
    fingerprint: str
    """Of the server's key."""
    fixed: dict[str, str]
    """Settings that must be the same in the next one, as TOML."""
    listeners: list[int]
    listeners_kept: bool
    """They belong to a service manager and stay when the server ends."""
    control: int | None
    control_kept: bool
    runtime: str
    runtime_lock: int
    passphrase: int
    """-1: it is in no descriptor."""
    parent_line: int
    """To the process that was started first, if it still exists; otherwise -1."""
    stderr: int
    """The server's stderr. Descriptor 2 is a pipe for error messages until the next one runs."""
    board: int = -1
    """The workers' scoreboard. -1: this version does not share it."""
    formats: dict[str, str] = {}
    """What must be equal in the next one if workers of both are to run side by side."""
    tickets: int = -1
    """Which tickets were used. -1: it cannot be handed over, as the next ones."""
    ticket_keys: int = -1
    """What opens them."""
    shared: list[str] = []
    """The fields whose descriptors come with the message, in this order."""

    @property
    def descriptors(self) -> list[int]:
        """All inherited descriptors."""
        found = [*self.listeners, self.control, self.runtime_lock, self.passphrase, self.stderr]
        found.append(self.parent_line)
        return [fd for fd in found if fd is not None and fd >= 0]

    @property
    def shared_descriptors(self) -> dict[str, int]:
        """Those of the fields in ``SHARED``, by field."""
        return {name: fd for name in SHARED if (fd := getattr(self, name)) >= 0}


def hand_over(line: socket.socket, handover: Handover) -> None:
    """Send the first message. It is lost if the peer is gone, as others are."""
    fds = handover.shared_descriptors
    without = replace(handover, **dict.fromkeys(fds, -1), shared=list(fds))
    data = json.dumps(msgspec.to_builtins(without)).encode()
    with contextlib.suppress(OSError):
        socket.send_fds(line, [data], list(fds.values()))


def take_over(line: socket.socket) -> Handover:
    """Receive the first message.

    Raises:
        OSError, ValueError, TypeError, LookupError: it is invalid, or did not come.
        StartError: it is in another format.
    """
    with contextlib.ExitStack() as undo:
        data, fds, _, _ = socket.recv_fds(line, BYTES_MAX, SHARED_MAX)
        for fd in fds:
            undo.callback(os.close, fd)
            os.set_inheritable(fd, False)
        found = msgspec.json.decode(data)["format"]
        if found != FORMAT:
            raise StartError(
                f"the version that runs hands over in format {found}, and this one takes "
                f"{FORMAT}: stop it, and start this one"
            )
        handover = msgspec.json.decode(data, type=Handover)
        taken = dict(zip(handover.shared, fds, strict=True))
        undo.pop_all()
    for name in taken.keys() - set(SHARED):
        os.close(taken.pop(name))
    return replace(handover, **taken, shared=[])


def send_message(line: socket.socket, **message: object) -> None:
    """Send a message.

    It is lost if the peer is gone, which is noticed when waiting for the answer.
    """
    try:
        line.send(json.dumps(message).encode())
    except OSError:
        return


def receive_messages(line: socket.socket) -> list[dict[str, Any]]:
    """Return the messages received on a non-blocking socket, skipping invalid ones.

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
                return messages  # the next call sees the end
            raise EOFError
        with contextlib.suppress(ValueError, RecursionError):
            message = json.loads(data)
            if isinstance(message, dict):
                messages.append(message)
