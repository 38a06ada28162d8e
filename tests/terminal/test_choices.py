"""Which choices hold a line, in whatever order outcomes arrive."""

from __future__ import annotations

from relay.terminal.choices import AIM, KIND, Choice, OpenChoices, removal
from relay.terminal.commands import parse
from relay.terminal.room_commands import Change


def test_a_line_is_held_by_what_was_typed_before_it() -> None:
    """A later command neither holds nor releases it, and a late outcome applies to later lines."""
    choices = OpenChoices()
    change, first, mistake, second, again, third = (choices.turn() for _ in range(6))
    choices.failed(KIND, mistake)
    assert list(choices.at(first)) == []
    assert list(choices.at(second)) == [KIND]
    choices.made(KIND, change)
    assert list(choices.at(second)) == [KIND], "made before the mistake"
    choices.made(KIND, again)
    assert list(choices.at(second)) == [KIND], "made after the line"
    assert list(choices.at(third)) == []
    choices.failed(AIM, change)
    assert list(choices.at(first)) == [AIM]
    choices.clear()
    assert list(choices.at(third)) == []


def test_a_removal_answers_the_one_without_a_name() -> None:
    """But not that of another person, and the one without a name answers no other."""
    choices = OpenChoices()
    for choice in (removal("bob"), removal("")):
        choices.failed(choice, choices.turn())
    choices.made(removal("eve"), choices.turn())
    assert list(choices.at(choices.turn())) == [removal("bob")]
    choices.made(removal(""), choices.turn())
    choices.made(removal("@Bob"), choices.turn())
    assert list(choices.at(choices.turn())) == []


def test_unknown_commands_are_one_choice() -> None:
    """A program may send any number of them; the first one holds all that follows."""
    choices = OpenChoices()
    for number in range(100):
        choices.failed(Choice("unknown", f"word{number}"), choices.turn())
    assert list(choices.at(choices.turn())) == [Choice("unknown", "word0")]


def test_names_are_no_choices() -> None:
    """Whatever a user or program is named, a change about them makes no other choice."""
    for name in ("kind", "aim", "keep", "unknown", "removal", "ban"):
        for word in ("mute", "unmute", "invite", "unban", "op", "deop", "owner"):
            change = parse(f"/{word} {name}", "den")
            assert isinstance(change, Change)
            assert change.chooses is None
        ban = parse(f"/ban {name}", "den")
        assert isinstance(ban, Change)
        assert ban.chooses == Choice("removal", name)
