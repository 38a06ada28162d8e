"""Makes the system calls that a relay needs once, before it depends on them.

Where a filter refuses one, what fails later is often something else: SQLite reports a full disk, a
library ends the process, a worker waits for the key agent. A filter stays as it is, so one look at
the start is enough, and only here the call is known by its name. Calls that a relay can do without
are not among them, nor those whose refusal is reported well where they are made.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from relay.errors import StartError
from relay.local_sockets import credentials
from relay.refused_calls import advice, is_refused
from relay.server.system.anonymous_file import anonymous_file

_Calls: TypeAlias = tuple[tuple[str, Callable[[int], object]], ...]
_ON_FILES: Final[_Calls] = (
    ("ftruncate", lambda fd: os.ftruncate(fd, 1)),
    ("pwrite64", lambda fd: os.pwrite(fd, b"\0", 0)),
    ("pread64", lambda fd: os.pread(fd, 1, 0)),
    ("fsync", os.fsync),
    ("fdatasync", os.fdatasync),
    ("fcntl", lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    ("flock", lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
)


def check_files() -> None:
    """Check the calls by which SQLite and Relay itself read and write the data directory.

    Raises:
        StartError: one is refused.
    """
    try:
        fd = anonymous_file("relay-check")
    except OSError:
        return  # whoever needs one reports it
    try:
        for name, call in _ON_FILES:
            with contextlib.suppress(OSError), _named(name):
                call(fd)
    finally:
        os.close(fd)


def check_all() -> None:
    """Check the calls of a server: on files, between its processes, and for random numbers.

    Raises:
        StartError: one is refused.
    """
    with _named("getrandom"):
        os.getrandom(1)
    check_files()
    with contextlib.suppress(OSError):
        _check_sockets()


def _check_sockets() -> None:
    with _named("socket"):
        listener = socket.socket(socket.AF_UNIX)
    with listener, socket.socket(socket.AF_UNIX) as client:
        with _named("bind"):
            listener.bind("")  # to a name that the kernel chooses, in no directory
        with _named("listen"):
            listener.listen(1)
        with _named("connect"):
            client.connect(listener.getsockname())
        with _named("accept4"):
            server = socket.socket(fileno=_accept4(listener.fileno()))
        with server:
            with _named("setsockopt"):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
            with _named("getsockopt"):
                credentials(client)
            with _named("sendto"):
                client.send(b"\0")
            with _named("recvfrom"):
                server.recv(1)


def _accept4(listener: int) -> int:
    """Accept a connection as uvloop does: Python would use another call if this one is missing."""
    accept4 = ctypes.CDLL(None, use_errno=True).accept4
    fd: int = accept4(listener, None, None, socket.SOCK_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


@contextlib.contextmanager
def _named(call: str) -> Iterator[None]:
    """Raise StartError if a call is refused, and any other error as it is."""
    try:
        yield
    except OSError as error:
        if is_refused(error):
            why = f"{call}: {error.strerror}: {advice(error)}"
            raise StartError(f"the system call {why}") from error
        raise
