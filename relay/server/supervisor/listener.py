"""The listening sockets, bound once and shared by all workers."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from pathlib import Path
from typing import Any, Final

from relay.errors import StartError
from relay.listen_address import AUTO, OFF, parse_listen_address
from relay.local_sockets import close_to_others

BACKLOG: Final = 4096
"""Connections that may wait while workers are restarted. Limited by net.core.somaxconn."""
CONTROL_ADDRESS: Final = ("127.0.0.1", 7476)
"""The default address of the control process."""
log = logging.getLogger("relay.supervisor")
_PROBES: Final = {
    "0.0.0.0": ("192.0.2.1", "127.0.0.1"),  # noqa: S104
    "::": ("2001:db8::1", "::1"),
}
"""Destinations by wildcard address: a remote address (for documentation), and loopback."""


def bind_all(binds: tuple[str, ...]) -> tuple[socket.socket, ...]:
    """Bind every address and listen; a Unix-domain socket is writable only for our user.

    Raises:
        StartError: an address cannot be bound; the message names it and what to do.
    """
    sockets: list[socket.socket] = []
    try:
        for text in binds:
            address = parse_listen_address(text, unix=True)
            sockets.append(_bind(*address) if isinstance(address, tuple) else bind_unix(address))
    except StartError as error:
        twice = next((bound for bound in sockets if _includes(bound, address)), None)
        where = "" if twice is None else format_bound(twice)
        for bound in sockets:
            close(bound)
        if twice is None:
            raise
        raise StartError(
            f"cannot listen on {text}: {where}, another of the addresses, includes it; leave one of"
            " the two out"
        ) from error
    return tuple(sockets)


def bind_control(text: str) -> socket.socket | None:
    """Bind the address of ``control.bind``, for metrics. None: it is off.

    Raises:
        StartError: it cannot be bound; the message names it and what to do.
    """
    if text == OFF:
        return None
    if text == AUTO:
        try:
            return _bind(*CONTROL_ADDRESS)
        except StartError:
            sock = _bind(CONTROL_ADDRESS[0], 0)
            log.info("control_address_in_use", extra={"instead": format_bound(sock)})
            return sock
    address = parse_listen_address(text, unix=True, words=True)
    try:
        return _bind(*address) if isinstance(address, tuple) else bind_unix(address)
    except StartError as error:
        raise StartError(
            f"control.bind: {error} (off for none)".replace("--bind", "--control")
        ) from None


def _includes(bound: socket.socket, address: tuple[str, int] | Path) -> bool:
    """Return True if an address that cannot be bound is this socket's, or overlaps with it."""
    name = bound.getsockname()
    if isinstance(address, Path):
        return path_of(bound) == address
    if bound.family == socket.AF_UNIX:
        return False
    with contextlib.suppress(OSError, UnicodeError):
        family, _, _, _, (host, port, *_) = _resolved(*address)
        same = host == name[0] or not {host, name[0]}.isdisjoint(_PROBES)
        return family == bound.family and port == name[1] and same
    return False


def close(sock: socket.socket, *, kept: bool = False) -> None:
    """Close a socket, and remove the name of a Unix-domain socket unless others keep using it."""
    path = None if kept else path_of(sock)
    if path is not None:
        with contextlib.suppress(OSError):
            path.unlink()
    sock.close()


def path_of(sock: socket.socket) -> Path | None:
    """Return the path of a Unix-domain socket; None: it is another kind, or has none.

    A service manager may give one with an abstract name, which no file system has.
    """
    name = sock.getsockname()
    return Path(name) if sock.family == socket.AF_UNIX and name and isinstance(name, str) else None


def bind_unix(path: Path) -> socket.socket:
    """Listen on a socket for our user only, replacing one that nobody listens on."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)  # a listener need not accept
                try:
                    probe.connect(os.fspath(path))
                except ConnectionRefusedError:
                    path.unlink()
                except BlockingIOError:
                    pass
        sock.bind(os.fspath(path))  # the umask restricts it to our user
        close_to_others(path)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        reason = f"{error.strerror or error}; choose another path"
        if error.errno == errno.EADDRINUSE:
            reason = (
                "another program listens there; stop it, or choose another path"
                if path.is_socket()
                else "there is a directory, or a file that is not a socket; remove it, or choose"
                " another path"
            )
        elif error.errno == errno.ENOENT:
            reason = "its directory does not exist; create it, or choose another path"
        raise StartError(f"cannot listen on unix:{path}: {reason}") from None
    sock.setblocking(False)
    return sock


def format_bound(sock: socket.socket) -> str:
    """Return HOST:PORT as bound; 0.0.0.0 and [::] stand for all addresses of the machine.

    An abstract name is shown with an @ for its first byte, as other programs show it.
    """
    if sock.family == socket.AF_UNIX:
        name = sock.getsockname()
        text = name if isinstance(name, str) else os.fsdecode(name).replace("\0", "@")
        return f"unix:{text}"
    return _join(*sock.getsockname()[:2])


def reachable_address(sock: socket.socket) -> str:
    """Return HOST:PORT for clients.

    For a socket bound to all addresses: the address that this machine uses for outgoing
    connections, or loopback if it has none.
    """
    host, port = sock.getsockname()[:2]
    if host in _PROBES:
        host = _outward_address(sock.family, *_PROBES[host])
    return _join(host, port)


def _outward_address(family: int, probe: str, loopback: str) -> str:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))  # sends nothing: only selects the address
            host: str = sock.getsockname()[0]
    except OSError:
        return loopback
    # A link-local address is useless without the name of the reader's interface.
    return loopback if host in _PROBES or host.startswith("fe80:") else host


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(host: str, port: int) -> socket.socket:
    where = _join(host, port)
    try:
        family, kind, protocol, _, address = _resolved(host, port)
    except socket.gaierror as error:
        reason = f"{error.strerror}; choose another with --bind"
        raise StartError(f"cannot listen on {where}: {reason}") from None
    except UnicodeError:  # from the IDNA codec, for a label that is empty or too long
        reason = "not a legal host name; choose another with --bind"
        raise StartError(f"cannot listen on {where}: {reason}") from None
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"cannot listen on {where}: {_advice(error)}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] and 0.0.0.0 are two addresses, on every system.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {where}: {_advice(error)}") from None
    sock.setblocking(False)
    return sock


def _resolved(host: str, port: int) -> tuple[Any, ...]:
    """Return the first result of ``socket.getaddrinfo``."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop the program that has it, or choose another with --bind"
    if error.errno == errno.EACCES:
        return "not permitted; ports below 1024 need a privilege, choose another with --bind"
    if error.errno == errno.EAFNOSUPPORT:
        return "this machine has no addresses of this kind (IPv6?); choose another with --bind"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; choose another with --bind"
    if error.errno == errno.EINVAL:
        return (
            "not an address for this; a link-local one needs its interface: [fe80::1%eth0]:PORT, "
            "and an IPv4 address has no ::ffff: before it"
        )
    return os.strerror(error.errno or 0)
