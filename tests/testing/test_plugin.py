"""``relay.testing.plugin`` in a user's project, run by a pytest of its own."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.cluster import ROOT
from tests.support.programs import run_program, run_pytest

PAGE = (ROOT / "docs" / "testing.md").read_text()


def blocks_of_the_page() -> dict[str, str]:
    """Return the page's programs by the file name in their first line."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    return dict(blocks)


def test_the_documented_tests_pass(tmp_path: Path) -> None:
    blocks = blocks_of_the_page()
    assert {"conftest.py", "test_bot.py", "test_restart.py"} <= blocks.keys()
    for name, text in blocks.items():
        (tmp_path / name).write_text(text)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_a_failure_shows_the_relays_log(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_fails(start_relay):\n    start_relay(workers=2)\n    assert False\n"
    )
    done = run_pytest(tmp_path, "-p", "relay.testing.plugin")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "log of start_relay" in done.stdout
    assert '"event": "starting"' in done.stdout


def test_pytest_is_loaded_by_the_plugin_alone() -> None:
    program = "import sys, relay.testing; print('pytest' in sys.modules, 'asyncio' in sys.modules)"
    done = run_program(program)
    assert (done.returncode, done.stdout.split()) == (0, ["False", "False"]), done.stderr
