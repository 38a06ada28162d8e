"""Describes why no connection could be opened, in the system's words, for both clients."""

from __future__ import annotations

import errno
import os
import socket

from relay import refused_calls
from relay.client.address import Address
from relay.client.dialling import AllFailed, NoSocket
from relay.client.errors import ConnectFailed


def unreachable(address: Address, error: OSError) -> ConnectFailed:
    """Return the error to raise or to report when a connection to ``address`` failed."""
    text = f"cannot connect to {address.host}, port {address.port}: {_why(error)}"
    return ConnectFailed(text, passing=not _is_refused(error))


def _is_refused(error: OSError) -> bool:
    """Return True if waiting does not help."""
    if isinstance(error, AllFailed):
        return bool(error.failures) and all(map(_is_refused, error.failures))
    return refused_calls.is_refused(error) and not _perhaps_firewall(error)


def _perhaps_firewall(error: OSError) -> bool:
    """Return True for what may be a rule of this machine for one peer, which may change."""
    return error.errno == errno.EPERM and not isinstance(error, NoSocket)


def _why(error: OSError) -> str:
    if isinstance(error, AllFailed):
        return ", ".join(dict.fromkeys(map(_why, error.failures)))
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):  # its numbers are not errno values
        return error.strerror or str(error)
    if refused_calls.is_refused(error):
        firewall = "a firewall of this machine, or " if _perhaps_firewall(error) else ""
        return f"{os.strerror(error.errno or 0)}: {firewall}{refused_calls.advice(error)}"
    if error.errno is not None:
        return os.strerror(error.errno)
    return error.strerror or str(error)
