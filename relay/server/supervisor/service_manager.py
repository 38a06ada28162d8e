"""The service manager that started the server: notifications to it, and sockets from it.

systemd's protocols, sd_notify(3) and sd_listen_fds(3). Without one of its variables nothing is told
and nothing given.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Final, NamedTuple

from relay.errors import StartError

FIRST_FD: Final = 3
PATIENCE_S: Final = 1.0
"""For the one message after which nobody is there to tell it again."""
RETRY_S: Final = 0.1
UNTOLD_MAX: Final = 16
"""Messages that wait for room in the service manager's queue. The last ones count."""
DIGITS_MAX: Final = 18
"""Of a number in the environment."""
CONTROL_NAME: Final = "control"
"""FileDescriptorName= of the socket on which metrics are read; every other one is for clients."""


class GivenSockets(NamedTuple):
    """Listening sockets that the service manager opened, and keeps open when the server ends."""

    clients: tuple[socket.socket, ...]
    control: socket.socket | None


class ServiceManager:
    """Tells the service manager how the server is. Raises nothing: it may be gone.

    Nor does it wait for a service manager that hangs: what its queue has no room for is told later.
    """

    def __init__(self, address: str, watchdog_s: float) -> None:
        """Begin.

        Args:
            address: of its socket; empty: there is none.
            watchdog_s: how often it wants to hear that the server lives; 0: not at all.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s / 2
        self._alive_at_s = 0.0
        self._untold: deque[bytes] = deque(maxlen=UNTOLD_MAX)

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """Return the one that the environment names, and take it out: it is for this process."""
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = environ.pop("WATCHDOG_USEC", "")
        if environ.pop("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            watchdog_us = ""
        return cls(address, _number(watchdog_us) / 1e6)

    @property
    def there(self) -> bool:
        """True if there is one."""
        return bool(self._address)

    def main_is(self, pid: int) -> None:
        """Another process serves from now on, and tells how the server is."""
        self._tell(f"MAINPID={pid}", patience_s=PATIENCE_S)

    def ready(self, status: str) -> None:
        """The server serves; also the end of a reload."""
        self._tell(f"READY=1\nSTATUS={status}")
        self._alive_at_s = 0.0  # of a process that was not the main one it has heard nothing

    def reloading(self) -> None:
        """A reload begins: ``ready`` must follow."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, timeout_s: float) -> None:
        """The server stops, and may take so long."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(timeout_s * 1e6)}")

    def alive(self, now: float) -> float:
        """Tell that the server lives, if it is time, and what could not be told before.

        Returns:
            When to call it again.
        """
        if not self._address:
            return math.inf
        if not self._flush():
            return now + RETRY_S
        if not self._watchdog_s:
            return math.inf
        if now >= self._alive_at_s:
            if not self._sent(b"WATCHDOG=1"):
                return now + RETRY_S
            self._alive_at_s = now + self._watchdog_s
        return self._alive_at_s

    def _tell(self, text: str, patience_s: float = 0.0) -> None:
        if self._address:
            self._untold.append(text.encode())
            self._flush(patience_s)

    def _flush(self, patience_s: float = 0.0) -> bool:
        """Tell what was not told yet, in order; return whether that is all."""
        while self._untold and self._sent(self._untold[0], patience_s):
            self._untold.popleft()
        return not self._untold

    def _sent(self, message: bytes, patience_s: float = 0.0) -> bool:
        """Send a message. False: there is no room for it now. Nobody there is no reason to wait."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.settimeout(patience_s)
                s.sendto(message, self._address)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError:
            return True
        return True


def given_sockets(environ: MutableMapping[str, str]) -> GivenSockets:
    """Return the listening sockets that were given to this process, and take them out.

    Raises:
        StartError: one is not a listening stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()):
        return GivenSockets((), None)
    clients: list[socket.socket] = []
    control: socket.socket | None = None
    for number in range(_number(count)):
        fd = FIRST_FD + number
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise StartError(f"the service manager's socket {fd}: {error.strerror}") from None
        if sock.type != socket.SOCK_STREAM or not listens:
            raise StartError(f"the service manager's socket {fd} is not a listening stream socket")
        sock.setblocking(False)
        if number < len(names) and names[number] == CONTROL_NAME and control is None:
            control = sock
        else:
            clients.append(sock)
    return GivenSockets(tuple(clients), control)


def _number(text: str) -> int:
    """Return a number that the environment has; 0: there is none, or none of this world."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX else 0
