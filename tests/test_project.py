"""The project: its lock files, metadata, documentation and imports."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, metadata, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import relay
from relay.wire import tables
from tests import blocking_client
from tests.support.cluster import COMMAND_S, ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=lambda page: page.as_posix())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Return the locked versions by package."""
    text = (ROOT / "requirements" / lock).read_text()
    return {canonicalize_name(found["name"]): found["version"] for found in PIN.finditer(text)}


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group, with those of included groups."""
    wanted: list[str] = []
    for item in PROJECT["dependency-groups"][name]:
        wanted += [item] if isinstance(item, str) else group(item["include-group"])
    return wanted


# --- locks -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("lock", "name"), [("run.txt", "build"), ("dev.txt", "dev")])
def test_lock_covers_what_the_project_asks_for(lock: str, name: str) -> None:
    """A dependency that was added or raised in pyproject.toml must be locked again."""
    locked = pins(lock)
    for text in [*PROJECT["project"]["dependencies"], *group(name)]:
        wanted = Requirement(text)
        assert locked[canonicalize_name(wanted.name)] in wanted.specifier, (
            f"run `make lock`: {text}"
        )


def test_both_locks_agree() -> None:
    """The tests run with the versions that a server runs with."""
    development = pins("dev.txt")
    assert pins("run.txt").items() <= development.items()


@pytest.mark.parametrize("lock", ["run.txt", "dev.txt"])
def test_lock_is_hashed_and_names_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(lock)) > 10
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


# --- metadata ----------------------------------------------------------------------------------
def test_metadata() -> None:
    facts = metadata("relay-chat")
    assert version("relay-chat") == relay.__version__
    assert facts["Requires-Python"] == ">=3.11"
    assert facts["License-Expression"] == "MIT"
    assert (ROOT / "relay" / "py.typed").is_file()


def test_console_command_can_be_loaded() -> None:
    (command,) = entry_points(group="console_scripts", name="relay")
    assert callable(command.load())


def test_the_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{relay.__version__}]" in text


# --- pages -------------------------------------------------------------------------------------
def test_tables_of_the_protocol_page_are_up_to_date() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    assert tables.filled(page) == page, "run: python -m relay.wire.tables docs/protocol.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?![a-z]+://)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_no_merge_was_left_unresolved() -> None:
    """Pages and code have no conflict markers, which no linter finds in Markdown."""
    marker = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
    code = (path for top in ("relay", "tests", "deploy") for path in (ROOT / top).rglob("*.*"))
    texts = (path for path in code if path.suffix in (".py", ".sh", ".toml", ".json", ".yml"))
    assert [path for path in (*PAGES, *texts) if marker.search(path.read_text())] == []


def test_every_target_of_the_readme_and_of_contributing_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(
            re.findall(r"(?:^ {4}|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
        )
        assert named
        assert named <= targets


# --- modules -----------------------------------------------------------------------------------
LINES_MAX = 400


def test_no_module_is_too_long() -> None:
    """A module has one job."""
    root = ROOT / "relay"
    lines = {
        module.relative_to(root).as_posix(): len(module.read_text().splitlines())
        for module in root.rglob("*.py")
    }
    assert len(lines) > 300
    assert {name for name, count in lines.items() if count > LINES_MAX} == set()


# --- imports -----------------------------------------------------------------------------------
def imported_by(*modules: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after importing these."""
    script = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_client_imports_nothing_of_linux_alone() -> None:
    """The import contracts cover our own imports; this includes what other packages import."""
    loaded = imported_by(
        "relay.client.aio",
        "relay.client.blocking",
        "relay.cli.main",
        "relay.cli.client_commands.chat",
        "relay.cli.client_commands.send",
        "relay.cli.client_commands.tail",
    )
    assert {"relay", "cryptography", "msgpack"} <= loaded
    assert loaded.isdisjoint({"uvloop", "apsw", "setproctitle", "pythonjsonlogger"})


def test_locust_is_kept_out_of_this_process(pytestconfig: pytest.Config) -> None:
    """It patches the whole process; its pytest plugin is installed in the same environment."""
    assert not pytestconfig.pluginmanager.has_plugin("locust")
    assert sys.modules.keys().isdisjoint({"locust", "gevent"})


def test_the_blocking_client_brings_no_event_loop() -> None:
    loaded = imported_by("relay.client.blocking")
    assert loaded.isdisjoint({"asyncio", "uvloop"})


def test_the_supervisor_brings_nothing_that_must_not_be_forked() -> None:
    loaded = imported_by(
        "relay.server.supervisor", "relay.server.scoreboard", "relay.server.context"
    )
    assert loaded.isdisjoint({"asyncio", "uvloop", "apsw", "cryptography", "ssl", "_ssl"})


def test_the_blocking_client_is_what_is_generated(tmp_path: Path) -> None:
    blocking_client.generate(tmp_path)
    for name in blocking_client.MODULES:
        there = (ROOT / "relay" / "client" / "blocking" / name).read_text()
        assert there == (tmp_path / name).read_text(), "python -m tests.blocking_client"
