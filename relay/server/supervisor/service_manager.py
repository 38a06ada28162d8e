"""Communication with the service manager that started the server.

Implements systemd's protocols sd_notify(3) and sd_listen_fds(3). Without their variables nothing is
sent and no sockets are received.
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
"""Timeout for the last message, which nobody can send again."""
RETRY_S: Final = 0.1
UNTOLD_MAX: Final = 16
"""Messages that wait for room in the service manager's queue. The latest ones are kept."""
DIGITS_MAX: Final = 18
"""Digits of a number in the environment."""
FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})
CONTROL_NAME: Final = "control"
"""FileDescriptorName= of the socket for metrics; all others are for clients."""


class GivenSockets(NamedTuple):
    """Listening sockets that the service manager opened and keeps open when the server ends."""

    clients: tuple[socket.socket, ...]
    control: socket.socket | None


class ServiceManager:
    """Notifies the service manager. Raises nothing: it may be gone.

    Never waits for a service manager that hangs: messages that its queue has no room for are sent
    later.
    """

    def __init__(self, address: str, watchdog_s: float) -> None:
        """Create.

        Args:
            address: of its socket; empty: there is none.
            watchdog_s: how often it expects to be notified that the server is alive; 0: never.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s / 2
        self._alive_at_s = 0.0
        self._untold: deque[bytes] = deque(maxlen=UNTOLD_MAX)

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """Return the one named in the environment, and remove the variables meant for this
        process.
        """
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
        """Another process serves from now on, and sends the notifications."""
        self._tell(f"MAINPID={pid}", patience_s=PATIENCE_S)

    def ready(self, status: str) -> None:
        """The server serves; also the end of a reload."""
        self._tell(f"READY=1\nSTATUS={status}")
        self._alive_at_s = 0.0  # notify at once: this process may be new to it

    def reloading(self) -> None:
        """A reload begins: ``ready`` must follow."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, timeout_s: float) -> None:
        """The server is stopping, and may take this long."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(timeout_s * 1e6)}")

    def alive(self, now: float) -> float:
        """Notify that the server is alive, if it is due, and send what could not be sent before.

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
        """Send waiting messages in order; return True if none is left."""
        while self._untold and self._sent(self._untold[0], patience_s):
            self._untold.popleft()
        return not self._untold

    def _sent(self, message: bytes, patience_s: float = 0.0) -> bool:
        """Send a message. False: there is no room now. A missing service manager counts as sent."""
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
    """Return the listening sockets given to this process, and remove the variables.

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
        if sock.family not in FAMILIES or sock.type != socket.SOCK_STREAM or not listens:
            raise StartError(
                f"the service manager's socket {fd} is not a listening stream socket (TCP or "
                "Unix-domain)"
            )
        sock.setblocking(False)
        if number < len(names) and names[number] == CONTROL_NAME and control is None:
            control = sock
        else:
            clients.append(sock)
    return GivenSockets(tuple(clients), control)


def _number(text: str) -> int:
    """Return a number from the environment; 0: it is missing or implausible."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= DIGITS_MAX else 0
