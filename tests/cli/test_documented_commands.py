"""Every command line of relay in the documentation is accepted by the program."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from relay.cli.main import relay
from tests.support.cluster import ROOT

PAGES = ("README.md", "docs/operations.md", "docs/settings.md")
ENDS = frozenset({">", "|", "&&", ";", "<"})


def commands() -> Iterator[tuple[str, str]]:
    """Return the lines of code that begin with our program."""
    for page in PAGES:
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if (
                line.startswith("    relay ")
                and "|" not in line
                and not line.startswith("    relay: ")
            ):
                yield page, line.strip()


def parse(command: click.Command, args: list[str], name: str, parent: click.Context | None) -> None:
    """Parse; raises click.UsageError."""
    with command.make_context(name, args, parent=parent) as context:
        if isinstance(command, click.Group):
            rest = [*context._protected_args, *context.args]
            if rest:
                found, below, left = command.resolve_command(context, rest)
                assert found is not None
                assert below is not None
                parse(below, left, found, context)


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_it_is_taken(page: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)
    for number, word in enumerate(words):
        if word in ENDS:
            words = words[:number]
            break
    parse(relay, words[1:], "relay", None)


def test_there_are_some() -> None:
    found = {line.split()[1] for page, line in commands() if page == "docs/operations.md"}
    assert found >= {"serve", "config", "backup", "data", "ctl"}


def test_a_wrong_one_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse(relay, ["ctl", "explode"], "relay", None)
    with pytest.raises(click.UsageError):
        parse(relay, ["serve", "--no-such-flag"], "relay", None)
