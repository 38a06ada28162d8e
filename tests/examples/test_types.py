"""The examples, the guide's programs and the public types, checked by a user's type checkers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.test_examples import PROGRAMS
from tests.support.cluster import COMMAND_S, ROOT

USES = """
from typing import assert_type

from relay import (
    BlockingClient, BlockingPost, BlockingRoom, Client, HistoryPage, Joined, Members, Message, Post,
    Room, Stored,
)


async def asynchronous(client: Client) -> None:
    assert_type(await client.join("lobby", timeout=1), Joined)
    assert_type(await client.send("lobby", "x", timeout=1), Stored)
    posted = await client.post("lobby", "x")
    assert_type(posted, Post)
    assert_type(await posted, Stored)
    assert_type(posted.result(), Stored)
    assert_type(await client.who("lobby"), Members)
    assert_type(await client.history("lobby"), HistoryPage)
    async with client.room("lobby") as room:
        assert_type(room, Room)
        async for message in room:
            assert_type(message, Message)
            assert_type(message.room, str)
        async for event in client.events(timeout=1):
            if isinstance(event, Message):
                assert_type(event.text, str)


def blocking(client: BlockingClient) -> None:
    assert_type(client.send("lobby", "x"), Stored)
    posted = client.post("lobby", "x")
    assert_type(posted, BlockingPost)
    assert_type(posted.result(timeout=1), Stored)
    with client.room("lobby") as room:
        assert_type(room, BlockingRoom)
        for message in room:
            assert_type(message, Message)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A user's own directory, without the settings of this checkout."""
    for path in (ROOT / "examples").glob("*.py"):
        if path.name != "from_the_page.py":  # it does not use the library
            (tmp_path / path.name).write_text(path.read_text())
    for number, program in enumerate(PROGRAMS):
        (tmp_path / f"guide_{number}.py").write_text(program)
    (tmp_path / "uses.py").write_text(USES)
    return tmp_path


def test_mypy(programs: Path) -> None:
    """With --strict."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", programs / "cache",
         *programs.glob("*.py")],
        cwd=programs, capture_output=True, text=True, check=False, timeout=COMMAND_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_pyright(programs: Path) -> None:
    """In its strict mode (by basedpyright, which brings its own Node)."""
    settings = {"typeCheckingMode": "strict", "venvPath": str(Path(sys.prefix).parent)}
    settings["venv"] = Path(sys.prefix).name
    (programs / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--project", programs],
        cwd=programs, capture_output=True, text=True, check=False, timeout=COMMAND_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
