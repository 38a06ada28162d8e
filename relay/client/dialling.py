"""Which of a host's addresses to try, and in what order: Happy Eyeballs (RFC 8305).

A host name may have several addresses, and some of them may swallow every packet. So the attempts
are raced: the next one starts when one has failed, or after ``ATTEMPT_DELAY_S`` without a result,
and all of them share one deadline. The first on which the server sends something wins: a relay does
so as soon as it accepts. Behind an address that accepts there may be a load balancer without
servers, or a program that hangs. For the last remaining attempt it is enough that it connects.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

from relay.client.address import Address

ATTEMPT_DELAY_S: Final = 0.25
"""RFC 8305, section 5: the recommended Connection Attempt Delay."""
ADDRESSES_MAX: Final = 32
"""Of one name; at the delay above, all of them get their turn within the deadline of a dial."""
_ENDED: Final = frozenset({7, 8})
"""The first byte of Linux's ``tcp_info``: TCP_CLOSE (reset), TCP_CLOSE_WAIT (the peer closed)."""

_Info: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""A row of ``getaddrinfo``."""


class Candidate(NamedTuple):
    """One address to try."""

    family: int
    protocol: int
    address: tuple[Any, ...]


class AllFailed(OSError):
    """All addresses failed; ``failures`` has one error for each."""

    def __init__(self, failures: Iterable[OSError]) -> None:
        super().__init__("no address could be reached")
        self.failures = tuple(failures)


def numeric(address: Address) -> list[Candidate] | None:
    """Return the only candidate of a host that is a numeric address; None for a name."""
    try:
        # Bytes: for a str Python loads the IDNA codec, which no address needs.
        host = address.host.encode("ascii")
        found = socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return None
    return in_order(found)


def resolve(address: Address) -> list[Candidate]:
    """Resolve a host, in the order to try. Blocks as long as the system's resolver does.

    Raises:
        OSError: it has no address, or is not a valid host name.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError:  # from the IDNA codec, for a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "not a legal host name") from None
    return in_order(found)


def in_order(infos: Iterable[_Info]) -> list[Candidate]:
    """Return candidates with alternating address families, the resolver's first choice first."""
    families: dict[int, deque[Candidate]] = {}
    for family, _, protocol, _, address in infos:
        candidate = Candidate(family, protocol, address)
        queue = families.setdefault(family, deque())
        if candidate not in queue:
            queue.append(candidate)
    ordered: list[Candidate] = []
    while any(families.values()):
        ordered += [queue.popleft() for queue in families.values() if queue]
    return ordered[:ADDRESSES_MAX]


def open_socket(candidate: Candidate) -> socket.socket:
    """Return an unconnected, non-blocking socket for a candidate."""
    opened = socket.socket(candidate.family, socket.SOCK_STREAM, candidate.protocol)
    opened.setblocking(False)
    disable_nagle(opened)
    return opened


def disable_nagle(opened: socket.socket) -> None:
    """Send small records at once. Not every kind of socket has the option."""
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def has_ended(opened: socket.socket) -> bool:
    """Return True if the peer has closed or reset a connection, without reading earlier data.

    Reading would show it only after everything that was sent. Only Linux can be asked; returns
    False elsewhere, and for other sockets than TCP.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError):
        return opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _ENDED
    return False


def dial_tcp(address: Address, timeout_s: float) -> socket.socket:
    """Connect within ``timeout_s``, without a thread: used by the blocking client.

    Raises:
        OSError: no address could be reached (AllFailed), the time is over (TimeoutError), or the
            host has no address.
    """
    deadline = time.monotonic() + timeout_s
    waiting = deque(numeric(address) or resolve(address))
    failures: list[OSError] = []
    # Looked up now: gevent replaces it.
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                if waiting:
                    won = _begin(waiting.popleft(), selector, failures)
                    if won is not None:
                        selector.register(won, selectors.EVENT_READ)
                if not waiting:
                    last = _last(selector)
                    if last is not None:
                        return last
                racing = len(selector.get_map())
                if not racing and not waiting:
                    raise AllFailed(failures)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("timed out")
                pause = min(left, ATTEMPT_DELAY_S) if waiting else left
                for key, _ in selector.select(pause if racing else 0):
                    opened = key.fileobj
                    assert isinstance(opened, socket.socket)
                    selector.unregister(opened)
                    try:
                        if key.events == selectors.EVENT_READ:
                            must_speak(opened)
                        failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        if failed:
                            raise _error(failed)
                    except OSError as error:
                        opened.close()
                        failures.append(error)
                        continue
                    if key.events == selectors.EVENT_READ:
                        return opened
                    selector.register(opened, selectors.EVENT_READ)
        finally:
            for key in list(selector.get_map().values()):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()


def _last(selector: selectors.BaseSelector) -> socket.socket | None:
    """Return the only remaining attempt, if it is connected."""
    keys = list(selector.get_map().values())
    if len(keys) != 1 or keys[0].events != selectors.EVENT_READ:
        return None
    opened = keys[0].fileobj
    assert isinstance(opened, socket.socket)
    selector.unregister(opened)
    return opened


def must_speak(opened: socket.socket) -> None:
    """Check a readable socket: the peer must have sent something, which stays unread.

    Raises:
        OSError: it has ended the connection instead.
    """
    if not opened.recv(1, socket.MSG_PEEK):
        raise ConnectionResetError(errno.ECONNRESET, "closed without sending anything")


def _begin(
    candidate: Candidate, selector: selectors.BaseSelector, failures: list[OSError]
) -> socket.socket | None:
    """Start one attempt; return the socket if it is connected at once."""
    opened = None
    try:
        opened = open_socket(candidate)
        opened.connect(candidate.address)
    except (BlockingIOError, InterruptedError):
        assert opened is not None
        selector.register(opened, selectors.EVENT_WRITE)
        return None
    except OSError as error:  # no such address family here, no route, no descriptor left
        if opened is not None:
            opened.close()
        failures.append(error)
        return None
    return opened


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
