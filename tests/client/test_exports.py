"""relay/__init__.py: the public names, and what they cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import relay

NAMES = sorted(relay._HOME_OF)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    """From its home, at its first use."""
    value = getattr(relay, name)
    assert value is getattr(sys.modules[relay._HOME_OF[name]], name)
    assert name in dir(relay)


def test_type_checkers_see_the_same_names() -> None:
    """The imports for them and the table for the rest of us agree."""
    tree = ast.parse(Path(relay.__file__).read_text())
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relay")
        for alias in node.names
    }
    assert imported == {f"{home}.{name}" for name, home in relay._HOME_OF.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As with any module."""
    with pytest.raises(AttributeError, match="nothing_like_that"):
        _ = relay.nothing_like_that  # type: ignore[attr-defined]


def test_import_relay_loads_none_of_it() -> None:
    """The server, and whoever asks for the version, pay for no client."""
    program = "import sys, relay; print([m for m in sys.modules if m.startswith('relay.')])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
