"""The three stories of docs/architecture.md, compared with real runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import COMMAND_S

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
TITLES = {"send": "A message", "login": "A login", "resume": "A resume"}
FIGURES = {"send": "SEND enters", "login": "a login", "resume": "a resume"}
"""How the page gives the number of files of each."""
WORKER = "server/worker/"
DRIFT = 2
"""A run may differ by this many files, depending on other work of the same turns."""
RUNS = 5
"""A worker's periodic work may come first in a run: one undisturbed run is enough."""
ANYWHERE = {f"{WORKER}delivery/stalled.py", f"{WORKER}member/pages.py"}
"""On a busy machine a worker asks for its turn before it knows what arrived, and takes the first
page before the home knows who has returned, in each run."""


def story(operation: str) -> list[str]:
    """Return the files that a story names, in order, each once."""
    page = PAGE.read_text()
    text = page[page.index(f"**{TITLES[operation]}.**") :].split("\n\n")[0]
    return [_file(name) for name in dict.fromkeys(re.findall(r"`(\w+(?:/\w+)+|wakeup)`", text))]


def _file(name: str) -> str:
    for path in (f"{name}.py", f"{WORKER}{name}.py"):
        if (ROOT / "relay" / path).is_file():
            return path
    raise AssertionError(f"no file {name}")


def figures(operation: str) -> set[int]:
    """Return the number of files that the page gives for an operation, or the ends of a range."""
    found = re.search(rf"{FIGURES[operation]} (\d+)(?: to (\d+))?\b", PAGE.read_text())
    assert found is not None
    return {int(number) for number in found.groups() if number}


def faults(operation: str, entered: list[str]) -> list[str]:
    """Return the differences between a story and a run."""
    told = story(operation)
    found = [f"{name} is not entered" for name in told if name not in entered]
    order = [name for name in entered if name in told and name not in ANYWHERE]
    named = set(told)
    told = [name for name in told if name in order]
    found += [f"{a} comes before {b}" for a, b in zip(order, told, strict=True) if a != b][:1]
    before = named if operation == "send" else {*named, *story("send")}
    found += [f"{n} is not named" for n in entered if n.startswith(WORKER) and n not in before]
    return found


@pytest.mark.parametrize("operation", TITLES)
def test_the_page_tells_the_way_of(operation: str) -> None:
    for _ in range(RUNS):
        run = subprocess.run(
            [sys.executable, "-m", "tests.trace", operation],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=COMMAND_S,
        )
        files = run.stdout.splitlines()[:-1]
        found = faults(operation, files)
        if min(abs(len(files) - told) for told in figures(operation)) > DRIFT:
            found.append(f"{len(files)} files, not {figures(operation)}")
        if not found:
            return
    raise AssertionError("\n".join(["", *found]))


def test_a_false_story_is_found() -> None:
    files = story("send")
    assert not faults("send", files)
    assert faults("send", files[:-1])
    assert faults("send", [files[1], files[0], *files[2:]])
    assert faults("send", [*files, f"{WORKER}home/followers/rosters.py"])


def test_the_table_of_a_message_adds_up() -> None:
    table = PAGE.read_text().split("| step | files |")[1].split("\n\n")[0]
    assert {sum(map(int, re.findall(r"\| (\d+) \|", table)))} == figures("send")
