"""relay/__init__.py: the public names, and their import cost."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
from pathlib import Path

import pytest

import relay
from relay import reference
from relay.client import closes, errors, events, refusals
from tests.support.cluster import ROOT
from tests.support.programs import run_program

DOCS = ROOT / "docs"
NAMES = sorted(relay._HOME_OF)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    """From its module, at its first use."""
    value = getattr(relay, name)
    assert value is getattr(sys.modules[relay._HOME_OF[name]], name)
    assert name in dir(relay)


def test_type_checkers_see_the_same_names() -> None:
    """The imports for type checkers and the table for run time agree."""
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
    """The server, and programs that need only the version, import no client."""
    program = "import sys, relay; print([m for m in sys.modules if m.startswith('relay.')])"
    done = run_program(program)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("module", [closes, errors, events, refusals])
def test_every_exception_and_event_is_public(module: object) -> None:
    """Programs can import from relay what they have to handle."""
    own = {
        name
        for name, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == module.__name__  # type: ignore[attr-defined]
    }
    assert own <= set(relay._HOME_OF)


def test_the_reference_is_up_to_date() -> None:
    """Run ``python -m relay.reference > docs/reference.md``."""
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference.markdown()


def test_the_reference_is_complete() -> None:
    """It has every public name once, and every method of the clients and rooms."""
    grouped = [name for group in reference.GROUPS.values() for name in group]
    assert sorted([*grouped, *reference.errors()]) == NAMES
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    for kind in (relay.Client, relay.Room):
        for name in dir(kind):
            if not name.startswith("_"):
                assert f".{name}" in page or f"* `{name}`" in page, name


def test_the_guide_names_what_exists() -> None:
    """Each class that it tells programs to use or to handle comes from relay."""
    guide = (DOCS / "client.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)\b[^`]*`", guide))
    assert len(named) > 30
    assert {name for name in named if name not in NAMES and not hasattr(builtins, name)} == set()
    code = re.findall(r"from relay import (.*)", guide)
    assert {name.strip() for line in code for name in line.split(",")} <= set(NAMES)
