"""A real relay for the tests of programs that talk to one: ``with RelayServer() as relay: ...``.

``relay.testing.plugin`` has fixtures for pytest; docs/testing.md shows both. Linux only, as the
server is.
"""

from relay.testing.server import RelayNotStarted, RelayNotStopped, RelayServer

__all__ = ["RelayNotStarted", "RelayNotStopped", "RelayServer"]
