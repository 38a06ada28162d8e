"""Which of a host's addresses to try, and in what order: Happy Eyeballs (RFC 8305).

A host name may have several addresses, and some of them may swallow every packet. So the attempts
are raced: the next one starts when one has failed, or after ``ATTEMPT_DELAY_S`` without a result,
and all of them share one deadline. The first on which the peer begins as a Relay server does wins:
a relay sends its hello as soon as it accepts. Behind an address that accepts there may be a load
balancer without servers, a program that hangs, or a server of another protocol. For the last
remaining attempt it is enough that it connects. If nothing else is left, or the time is over, a
server of another protocol is returned: the caller finds out what it is. An address whose last
connection ended before the login is tried once all others have failed, or after
``DOUBTFUL_DELAY_S``.

Who answers does not matter to the check of the server's key, which is the same for all addresses of
a host.
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
from functools import cache
from typing import Any, Final, TypeAlias

from relay.client.address import Address
from relay.client.candidates import AddressHistory, Candidate
from relay.wire.frames import HEADER, FrameType
from relay.wire.messages import MAGIC

ATTEMPT_DELAY_S: Final = 0.25
"""RFC 8305, section 5: the recommended Connection Attempt Delay."""
DOUBTFUL_DELAY_S: Final = 2.0
"""Longer than a distant server needs to begin; short enough if all others swallow packets."""
ADDRESSES_MAX: Final = 32
"""Of one name; at the delay above, all of them get their turn within the deadline of a dial."""
_ENDED: Final = frozenset({7, 8})
"""The first byte of Linux's ``tcp_info``: TCP_CLOSE (reset), TCP_CLOSE_WAIT (the peer closed)."""

_BEGINNING_BYTES: Final = HEADER + len(MAGIC)
"""Of a server's hello; what follows is for the handshake to judge."""

_Info: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
"""A row of ``getaddrinfo``."""


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


class NoSocket(OSError):
    """This process gets no socket, or no random numbers, whatever address is to be dialled."""


@cache
def _check_random_numbers() -> None:
    """Check that there are some, once: what refuses them stays as it is. Raises OSError."""
    if sys.platform == "linux":
        os.getrandom(1)


def open_socket(candidate: Candidate) -> socket.socket:
    """Return an unconnected, non-blocking socket for a candidate; see ``accepted``.

    Raises:
        NoSocket: the system allows none, or no random numbers, without which the handshake of a
            connection would fail for a reason that nobody could guess.
    """
    try:
        _check_random_numbers()
        opened = socket.socket(candidate.family, socket.SOCK_STREAM, candidate.protocol)
    except OSError as error:
        raise NoSocket(error.errno, error.strerror) from None
    opened.setblocking(False)
    disable_nagle(opened)
    _wake_at(opened, _BEGINNING_BYTES)
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


class Pace:
    """Decides when the next attempt of a dial begins.

    That an earlier one has connected is no reason to begin: only its end is, or the delay.
    """

    __slots__ = ("_began", "_next_at")

    def __init__(self) -> None:
        """The dial begins."""
        self._began = self._next_at = time.monotonic()

    def begun(self) -> None:
        """An attempt begins: the next one waits for its result, but not for long."""
        self._next_at = time.monotonic() + ATTEMPT_DELAY_S

    def ended(self) -> None:
        """An attempt has ended, and its address was not chosen."""
        self._next_at = self._began

    def pause_s(self, candidate: Candidate, *, alone: bool) -> float:
        """Return the seconds until the next attempt is due; 0.0: it is.

        Args:
            candidate: the next one.
            alone: no other attempt is racing.
        """
        if alone:
            return 0.0
        due = self._next_at
        if candidate.doubtful:
            due = max(due, self._began + DOUBTFUL_DELAY_S)
        return max(0.0, due - time.monotonic())


def dial_tcp(
    address: Address, timeout_s: float, history: AddressHistory | None = None
) -> socket.socket:
    """Connect within ``timeout_s``, without a thread: used by the blocking client.

    ``history`` decides about the order, and is told which address was chosen.

    Raises:
        OSError: no address could be reached (AllFailed), the time is over (TimeoutError), or the
            host has no address.
    """
    history = AddressHistory() if history is None else history
    deadline = time.monotonic() + timeout_s
    pace = Pace()
    waiting = deque(history.in_order(numeric(address) or resolve(address)))
    failures: list[OSError] = []
    strangers: list[tuple[socket.socket, Candidate]] = []

    def chosen(opened: socket.socket, candidate: Candidate) -> socket.socket:
        history.chosen(candidate)
        return accepted(opened)

    # Looked up now: gevent replaces it.
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                racing = len(selector.get_map())
                if waiting and not pace.pause_s(waiting[0], alone=not racing):
                    if _begin(waiting.popleft(), selector, failures):
                        pace.begun()
                    else:
                        pace.ended()
                    racing = len(selector.get_map())
                if not waiting:
                    last = _last(selector)
                    if last is not None:
                        return chosen(*last)
                if not racing and not waiting:
                    if strangers:
                        return chosen(*strangers.pop())
                    raise AllFailed(failures)
                left = deadline - time.monotonic()
                if left <= 0:
                    if strangers:
                        return chosen(*strangers.pop())
                    raise TimeoutError("timed out")
                pause = pace.pause_s(waiting[0], alone=not racing) if waiting else left
                for key, _ in selector.select(min(left, pause) if racing else 0):
                    opened = key.fileobj
                    assert isinstance(opened, socket.socket)
                    selector.unregister(opened)
                    try:
                        if key.events == selectors.EVENT_READ and begins_as_relay(opened):
                            return chosen(opened, key.data)
                        failed = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        if failed:
                            raise _error(failed)
                    except OSError as error:
                        opened.close()
                        failures.append(error)
                        pace.ended()
                        continue
                    if key.events == selectors.EVENT_READ:
                        strangers.append((opened, key.data))
                        pace.ended()
                    else:
                        selector.register(opened, selectors.EVENT_READ, key.data)
        finally:
            for opened, _ in strangers:
                opened.close()
            for key in list(selector.get_map().values()):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()


def _last(selector: selectors.BaseSelector) -> tuple[socket.socket, Candidate] | None:
    """Return the only remaining attempt, if it is connected."""
    keys = list(selector.get_map().values())
    if len(keys) != 1 or keys[0].events != selectors.EVENT_READ:
        return None
    opened = keys[0].fileobj
    assert isinstance(opened, socket.socket)
    return opened, selector.unregister(opened).data


def begins_as_relay(opened: socket.socket) -> bool:
    """Return whether the peer of a readable socket has begun a hello, which stays unread.

    Raises:
        OSError: it has ended the connection instead.
    """
    begun = opened.recv(_BEGINNING_BYTES, socket.MSG_PEEK)
    if not begun or (len(begun) < _BEGINNING_BYTES and has_ended(opened)):
        raise ConnectionResetError(errno.ECONNRESET, "closed without a whole message")
    magic = begun[HEADER:]
    return begun[0] == FrameType.SERVER_HELLO and magic == MAGIC[: len(magic)]


def accepted(opened: socket.socket) -> socket.socket:
    """Return a socket that is to be used, in the state in which others know sockets."""
    _wake_at(opened, 1)
    return opened


def _wake_at(opened: socket.socket, count: int) -> None:
    """Let a socket be readable once it has this many bytes, or has ended. Not all systems can."""
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _begin(candidate: Candidate, selector: selectors.BaseSelector, failures: list[OSError]) -> bool:
    """Start one attempt. False: it has failed."""
    opened = None
    try:
        opened = open_socket(candidate)
        opened.connect(candidate.address)
    except (BlockingIOError, InterruptedError):
        assert opened is not None
        selector.register(opened, selectors.EVENT_WRITE, candidate)
    except OSError as error:  # no such address family here, no route, no descriptor left
        if opened is not None:
            opened.close()
        failures.append(error)
        return False
    else:  # connected at once
        selector.register(opened, selectors.EVENT_READ, candidate)
    return True


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
