"""docs/events.md: every event that the server logs, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from relay.server import logs
from tests.support.cluster import ROOT

LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log", "makeRecord"}
MADE_BY_ROLE = {"control_ready", "agent_ready", "workers"}
"""Their names have a role's name in them (``supervisor/supervisor.py``)."""
SERVER = ("relay/server", "relay/bus", "relay/store", "relay/cli/server_commands/serve.py")


def logged(tree: ast.AST) -> Iterator[str]:
    """Yield each constant that a logger is called with as the event's name."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of_logger = isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
        if of_logger and node.func.attr in LEVELS:
            for argument in node.args:
                name = argument.value if isinstance(argument, ast.Constant) else None
                if isinstance(name, str) and name:
                    yield name


def files() -> Iterator[Path]:
    for name in SERVER:
        path = ROOT / name
        yield from [path] if path.is_file() else path.rglob("*.py")


def test_every_event_is_documented_and_exists() -> None:
    in_code = {event for file in files() for event in logged(ast.parse(file.read_text()))}
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert documented == in_code | MADE_BY_ROLE
    assert documented >= logs.ALWAYS_WRITTEN
