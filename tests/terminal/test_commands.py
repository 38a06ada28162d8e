"""How a typed line is parsed."""

from __future__ import annotations

import pytest

from relay.terminal import commands, room_commands
from relay.terminal.commands import (
    About,
    Block,
    Choose,
    Command,
    Help,
    History,
    Join,
    Mistake,
    Numbers,
    Query,
    Quit,
    Room,
    Rooms,
    Say,
    Search,
    Seen,
    Tell,
    Who,
    parse,
)
from relay.terminal.room_commands import Change
from relay.terminal.text import columns
from relay.terminal.view import NOTICE


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("hello", Say("hello")),
        ("", Say("")),
        (" /who", Say(" /who")),
        ("//who", Say("/who")),
        ("///", Say("//")),
        ("/who", Who()),
        ("/Who", Who()),
        ("/exit", Quit()),
        ("/rooms", Rooms()),
        ("/ignore bob", Block("bob", blocked=True)),
        ("/dm bob hi", Tell("bob", "hi")),
        ("/delete  Den", Change("delete")),
        ("/who ", Who()),
        ("/help", Help()),
        ("/help room", Help(of_rooms=True)),
        ("/numbers", Numbers(20)),
        ("/numbers 3", Numbers(3)),
        ("/mute bob 10m 3 times too loud", Change("mute", "bob", "3 times too loud", 600)),
        ("/quit", Quit()),
        ("/history", History(20)),
        ("/history 7", History(7)),
        ("/history  1000 ", History(1000)),
        ("/search  two words ", Search("two words")),
        ("/search", Search("")),
        ("/search " + "x" * 256, Search("x" * 256)),
        ("/room", Room()),
        ("/topic", Room()),
        ("/topic tea ", Change("topic", text="tea")),
        ("/list", Rooms()),
        ("/msg  @Bob  two  words", Tell("bob", " two  words")),
        ("/query bob", Query("bob")),
        ("/query", Query("")),
        ("/reply yes", About("reply", "yes")),
        ("/edit yes", About("edit", "yes")),
        ("/react +1", About("react", "+1")),
        ("/erase", About("erase", "")),
        ("/block @bob", Block("bob", blocked=True)),
        ("/unblock bob", Block("bob", blocked=False)),
        ("/seen bob", Seen("bob")),
        ("/writers", Choose("writers", None)),
        ("/writers rooms", Choose("writers", "rooms")),
        ("/seenby nobody", Choose("seenby", "nobody")),
        ("/ban bob 2h too loud", Change("ban", "bob", "too loud", 7200)),
        ("/ban bob too loud", Change("ban", "bob", "too loud")),
        ("/op bob", Change("role", "bob", role="moderator")),
        ("/redact 7 why", Change("redact", text="why", seq=7)),
        ("/keep 30d 1000 2M den", Change("keep", keep=(30 * 86_400, 1000, 2 << 20))),
        ("/keep default", Change("keep")),
        ("/private", Change("kind", kind="private")),
        ("/member", Change("enter")),
    ],
)
def test_lines(line: str, command: Command) -> None:
    """Texts and commands."""
    assert parse(line, "den") == command


@pytest.mark.parametrize(
    "line",
    ["/", "/whoo", "/quitt", "/password hunter2", "/who bob", "/quit now", "/history x"]
    + ["/room x", "/list x", "/erase x", "/reply", "/edit", "/react", "/msg", "/msg bob", "/msg b!"]
    + [
        "/query b!",
        "/seen",
        "/block",
        "/unblock b!",
        "/ban",
        "/writers bob",
        "/seenby all x",
        "/op",
        "/op bob x",
        "/close x",
    ]
    + [
        "/keep",
        "/keep long",
        "/keep 1d x",
        "/keep 0 den",
        "/keep den",
        "/keep 1d",
        "/keep 1d attic",
    ]
    + ["/mute bob 15min", "/ban bob 10 hours", "/ban bob 1h30m", "/ban bob 3", "/ban bob 7D"]
    + ["/help me", "/numbers x", "/delete", "/delete attic", "/search " + "é" * 129]
    + [f"/redact {n}" for n in ("", "x", "0", "-1", "²", "9" * 5000)]
    + [f"/history {n}" for n in ("0", "-1", "1001", "²", "9" * 5000)],
)
def test_a_mistake_is_never_sent(line: str) -> None:
    """A slash with an unknown command: an error to the user, nothing to the room."""
    mistake = parse(line, "den")
    assert isinstance(mistake, Mistake)
    assert "not sent" in mistake.reason


@pytest.mark.parametrize("blank", [" ", "\t", "\ufeff", "\xa0 "])
@pytest.mark.parametrize("line", ["/private", "/query bob", "/ban bob", "/keep 1x", "/who"])
def test_a_command_after_a_blank(blank: str, line: str) -> None:
    """A message, or where nobody sees that, the mistake that the command would be."""
    assert parse(blank + line, "den") == Say(blank + line)
    mistake = parse(blank + line, "den", strict=True)
    assert isinstance(mistake, Mistake)
    assert (mistake.chooses is None) == (line == "/who")


@pytest.mark.parametrize("line", [" hello", " /usr/bin", " //who", "//who", "1 /who", ""])
def test_what_is_no_command_is_a_message(line: str) -> None:
    assert parse(line, "den", strict=True) == parse(line, "den")
    assert isinstance(parse(line, "den"), Say)


def test_what_removes_messages_says_how_it_is_meant() -> None:
    """With the room's name, which may look like a bound."""
    for line, meant in (("/delete it", "/delete den"), ("/keep 1d 7", "/keep 1d 7 den")):
        mistake = parse(line, "den")
        assert isinstance(mistake, Mistake)
        assert meant in mistake.reason
    assert parse("/keep 30d 30d", "30d") == Change("keep", keep=(30 * 86_400, 0, 0))
    assert isinstance(parse("/keep 30d", "30d"), Mistake)


def test_what_people_type_elsewhere_says_what_to_do_here() -> None:
    found = parse("/part", "den")
    assert isinstance(found, Mistake)
    assert "/quit leaves" in found.reason
    for word in ("leave", "me waves", "nick eve", "whois bob", "away", "voice bob", "mode +m"):
        found = parse(f"/{word}", "den")
        assert isinstance(found, Mistake)
        assert "unknown" not in found.reason
    assert parse("/join", "den") == Join()
    assert parse("/join Den", "den") == Join()
    assert isinstance(parse("/join attic", "den"), Mistake)


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        ("me whois whowas away back voice notice clear", False),
        ("mesg whios whoi awya wohis hsitory edti", False),
        ("m em lits nick roon part leave mode mdoe nonsense secret lock hide invisible", True),
        ("privat pubilc anounce qurey kik ick bna keeep jion qiut exti clsoe", True),
    ],
)
def test_which_unknown_commands_hold_what_follows(words: str, holds: bool) -> None:
    """All but those that choose nobody in other programs, and slips of such commands."""
    for word in words.split():
        found = parse(f"/{word} tea", "den")
        assert isinstance(found, Mistake), word
        assert (found.chooses is not None) is holds, word
        assert parse(f" /{word} tea", "den", strict=True) == Say(f" /{word} tea")


@pytest.mark.parametrize("lines", [commands.HELP, room_commands.HELP])
def test_help_fits_a_screen(lines: tuple[str, ...]) -> None:
    """Of 80 columns and 24 lines, some of which the prompt and the input need."""
    assert len(lines) <= 20
    assert max(columns(NOTICE + line) for line in lines) < 80
