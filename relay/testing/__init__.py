"""A real relay for testing programs that use one: ``with RelayServer() as relay: ...``.

``relay.testing.plugin`` has fixtures for pytest; docs/testing.md shows both. Linux only, like the
server.
"""

from relay.testing.server import RelayNotStarted, RelayNotStopped, RelayServer

__all__ = ["RelayNotStarted", "RelayNotStopped", "RelayServer"]
