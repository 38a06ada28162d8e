"""Why no connection could be opened, in the system's words for both faces of the client."""

from __future__ import annotations

import os
import re
import socket

from relay.client.address import Address
from relay.client.errors import ConnectFailed


def unreachable(address: Address, error: OSError) -> ConnectFailed:
    """Return the error to raise or to report when a connection to ``address`` failed."""
    return ConnectFailed(f"cannot connect to {address.host}, port {address.port}: {_why(error)}")


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):  # its numbers are not those of the system
        return error.strerror or str(error)
    if error.errno is not None:
        return os.strerror(error.errno)
    # asyncio tried several addresses, and puts what happened at each into one text.
    numbers = re.findall(r"\[(?:Errno|WinError) (\d+)\]", str(error))
    reasons = dict.fromkeys(os.strerror(int(number)) for number in numbers)
    return ", ".join(reasons) or error.strerror or str(error)
