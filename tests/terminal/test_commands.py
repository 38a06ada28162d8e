"""What a typed line means."""

from __future__ import annotations

import pytest

from relay.terminal.commands import Command, Help, History, Mistake, Quit, Say, Who, parse


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("hello", Say("hello")),
        ("", Say("")),
        (" /who", Say(" /who")),
        ("//who", Say("/who")),
        ("///", Say("//")),
        ("/who", Who()),
        ("/who ", Who()),
        ("/help", Help()),
        ("/quit", Quit()),
        ("/history", History(20)),
        ("/history 7", History(7)),
        ("/history  1000 ", History(1000)),
    ],
)
def test_lines(line: str, command: Command) -> None:
    """Texts and commands."""
    assert parse(line) == command


@pytest.mark.parametrize(
    "line",
    ["/", "/Who", "/quitt", "/password hunter2", "/who bob", "/quit now", "/history x"]
    + [f"/history {n}" for n in ("0", "-1", "1001", "²", "9" * 5000)],
)
def test_a_mistake_is_never_sent(line: str) -> None:
    """One slash and no known command: the person is told, the room is not."""
    mistake = parse(line)
    assert isinstance(mistake, Mistake)
    assert "not sent" in mistake.reason
