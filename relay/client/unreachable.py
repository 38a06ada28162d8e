"""Describes why no connection could be opened, in the system's words, for both clients."""

from __future__ import annotations

import os
import socket

from relay.client.address import Address
from relay.client.dialling import AllFailed
from relay.client.errors import ConnectFailed


def unreachable(address: Address, error: OSError) -> ConnectFailed:
    """Return the error to raise or to report when a connection to ``address`` failed."""
    return ConnectFailed(f"cannot connect to {address.host}, port {address.port}: {_why(error)}")


def _why(error: OSError) -> str:
    if isinstance(error, AllFailed):
        return ", ".join(dict.fromkeys(map(_why, error.failures)))
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):  # its numbers are not errno values
        return error.strerror or str(error)
    if error.errno is not None:
        return os.strerror(error.errno)
    return error.strerror or str(error)
