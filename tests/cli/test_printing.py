"""Commands print through one module, which prints only harmless text."""

from __future__ import annotations

import ast
import os
import pty
import sys
from pathlib import Path

import pytest

from relay.cli.client_commands import account, device, user
from relay.cli.console import printing
from relay.client.account_calls import Device, Devices, Preferences, User
from relay.terminal.text import is_unseen

EVIL = "\x1b]0;owned\x07\x1b[2J\u202ex\nrelay: all is well"
DOORS = {
    "cli/console/printing.py", "cli/process/exits.py", "cli/process/streams.py",
    "terminal/output.py", "terminal/screens.py",
}  # fmt: skip
"""The modules that write to the standard streams: each escapes what it writes."""


def _calls(path: Path) -> list[str]:
    """Return the calls in a module that print."""
    lines = path.read_text().splitlines()
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            excused = "noqa: T" in lines[node.lineno - 1]  # each has its reason
            if called in ("print", "click.echo", "click.secho") and not excused:
                found.append(called)
            if called.startswith(("sys.stdout.write", "sys.stderr.write")):
                found.append(called)
    return found


def test_no_command_prints_but_through_the_door() -> None:
    """ruff forbids print and click.echo as well; this test finds writes to the streams."""
    root = Path(printing.__file__).parents[1]
    found = {
        str(path.relative_to(root)): calls
        for part in ("cli", "terminal")
        for path in (root / part).glob("*.py")
        if (calls := _calls(path)) and str(path.relative_to(root)) not in DOORS
    }
    assert not found


def test_what_a_server_says_of_accounts_and_devices_is_harmless(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every field that a server can fill freely."""
    device._print(Devices(EVIL, b"a" * 32, (Device("k" * 52, EVIL, False),), 1), "")
    account._print(EVIL, Preferences("all", "all", (EVIL,)), as_json=False)
    account._print(EVIL, Preferences("all", "all", (EVIL,)), as_json=True)
    shown = User(EVIL, EVIL, False, 1 << 62, (Device(EVIL, EVIL, False),), 1, EVIL)
    user._block(shown)
    user._object(shown)
    output = capsys.readouterr().out
    assert "owned" in output
    assert not any(is_unseen(char) for char in output.replace("\n", ""))
    assert not any(line.startswith("relay:") for line in output.splitlines())


def test_a_line_that_is_wider_than_the_terminal_goes_on_with_an_indent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise its second row, with quoted text, would begin where a line begins."""
    master, slave = pty.openpty()
    text = "word " * 100
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        printing.print_line(text)
        terminal.flush()
        seen = b""
        while seen.count(b"word") < 100:
            seen += os.read(master, 65_536)
        monkeypatch.undo()
    os.close(master)
    rows = seen.decode().split("\r\n")[:-1]
    assert len(rows) > 1
    assert all(len(row) < 80 for row in rows)
    assert [row.startswith(printing.INDENT) for row in rows] == [False] + [True] * (len(rows) - 1)
