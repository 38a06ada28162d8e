"""What all tests share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _own_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reads or changes what the commands keep for the user: keys of servers, aliases.

    Device keys are one directory for all tests of a process, for a relay may serve several tests;
    a client that has none makes one and claims its name.
    """
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path_factory.getbasetemp() / "keys"))
    monkeypatch.setenv("RELAY_REGISTER", "1")


@pytest.fixture(autouse=True)
def _unchanged_logging() -> Iterator[None]:
    """No test leaves its log behind: a worker that runs in a test's process sets the level, too."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
