"""Fixtures for pytest. In the conftest.py at the root of your tests::

    pytest_plugins = ["relay.testing.plugin"]

=================  ==========  =================================================================
``relay_server``   session     a running ``RelayServer``, one for all tests
``relay_room``     function    the name of a room that no other test uses
``start_relay``    function    starts a relay for this test alone: ``start_relay(workers=2)``
``relay_keys``     session     where clients without a key find or make one; with the others
=================  ==========  =================================================================

The log of a relay that a failed test used is shown with the failure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from relay.testing.server import RelayServer

LOG_LINES_SHOWN = 50
_rooms = itertools.count(1)


@pytest.fixture(scope="session")
def relay_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a directory of device keys for this session only.

    Clients without a key create one there, and claim their name: in this process, and in those that
    inherit its environment.
    """
    directory = tmp_path_factory.mktemp("relay-keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELAY_KEYS", str(directory))
        patch.setenv("RELAY_REGISTER", "1")
        yield directory


@pytest.fixture(scope="session")
def relay_server(relay_keys: Path) -> Iterator[RelayServer]:
    """A running relay for all tests of the session: use your own rooms and names in it."""
    with RelayServer() as server:
        yield server


@pytest.fixture
def relay_room() -> str:
    """A room name that no other test of the session uses."""
    return f"room-{next(_rooms)}"


class StartRelay:
    """Starts relays, and stops them after the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.started: list[RelayServer] = []
        """All relays so far."""

    def __call__(self, **options: Any) -> RelayServer:  # noqa: ANN401
        """Return a running relay for this test; takes the arguments of ``RelayServer``."""
        server = RelayServer(**options)
        self.started.append(server)
        return self._stack.enter_context(server)


@pytest.fixture
def start_relay(relay_keys: Path) -> Iterator[Callable[..., RelayServer]]:
    """Start relays for this test; they are stopped after it."""
    with ExitStack() as stack:
        yield StartRelay(stack)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of the relays' logs to a failure."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            for server in value.started if isinstance(value, StartRelay) else [value]:
                if isinstance(server, RelayServer) and (lines := server.log):
                    text = "\n".join(lines[-LOG_LINES_SHOWN:])
                    report.sections.append((f"log of {name}", text))
    return report
