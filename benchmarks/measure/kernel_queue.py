"""The kernel's send queue of a TCP connection, as /proc/net/tcp shows it."""

from __future__ import annotations

from pathlib import Path


def send_queue(local_port: int, remote_port: int) -> int:
    """Return the bytes written to a local IPv4 socket and not acknowledged by the other end.

    Raises:
        LookupError: there is no such connection.
    """
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if (_port(local), _port(remote)) == (local_port, remote_port):
            return int(queues.split(":")[0], 16)
    raise LookupError(f"no connection from port {local_port} to port {remote_port}")


def _port(address: str) -> int:
    return int(address.split(":")[1], 16)
