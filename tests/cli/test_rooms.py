"""``relay room`` and the chat's commands about rooms, as users run them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Relay, run_relay, wait_until
from tests.support.people import Person
from tests.support.tails import Tail
from tests.support.terminals import Terminal

"""Each command is a process of its own, and some tests run a dozen of them."""


@pytest.fixture
def people(relay: Relay) -> Relay:
    """A relay with Anna and Bert."""
    for name in ("anna", "bert"):
        done("register", relay.address, "--name", name)
    return relay


def done(*args: str | os.PathLike[str], status: int = 0) -> str:
    """Run a command; return its output, with stderr."""
    found = run_relay(*args)
    output = found.stdout + found.stderr
    assert found.returncode == status, output
    assert "Traceback" not in output
    return output


def json_lines(*args: str) -> list[dict[str, Any]]:
    """Return a command's JSON output."""
    return [json.loads(line) for line in done(*args).splitlines() if line.startswith("{")]


def test_what_an_owner_does(people: Relay, room: str) -> None:
    """Each command once, and what the other user sees of it."""
    address = people.address

    def anna(command: str, *args: str, status: int = 0) -> str:
        return done("room", command, address, room, *args, "--name", "anna", status=status)

    def bert(command: str, *args: str, status: int = 0) -> str:
        return done("room", command, address, room, *args, "--name", "bert", status=status)

    def berts_own() -> list[dict[str, Any]]:
        listed = json_lines("room", "list", address, "--mine", "--json", "--name", "bert")
        return [one for one in listed if one["name"] == room]

    assert f"{room} is yours" in anna("create", "--kind", "private", "--topic", "tea")
    assert "ROOM_EXISTS" in bert("create", status=1)
    assert "MEMBERS_ONLY" in bert("show", status=1)
    assert "MEMBERS_ONLY" in done("send", address, room, "hi", "--name", "bert", status=1)
    listed = done("room", "list", address, "--name", "bert")
    assert room not in listed
    anna("invite", "bert")
    listed = done("room", "list", address, "--name", "bert")
    assert f'{room} private, 1 member, you are invited: "tea"' in listed
    (waiting,) = berts_own()
    assert (waiting["name"], waiting["role"], waiting["unread"]) == (room, "invited", 0)
    bert("enter")
    done("send", address, room, "hi", "--name", "anna")
    (found,) = berts_own()
    assert (found["role"], found["unread"]) == ("member", 1)
    listed = done("room", "list", address, "--name", "bert")
    assert f'{room} private, 2 members, you are a member, 1 unread: "tea"' in listed
    found = json.loads(bert("show", "--json"))
    assert (found["kind"], found["topic"]) == ("private", "tea")
    assert {(one["name"], one["role"]) for one in found["people"]} == {
        ("anna", "owner"),
        ("bert", "member"),
    }
    version = found["version"]
    anna("topic", "coffee")
    assert "CHANGED" in anna("topic", "cocoa", "--seen", str(version), status=1)
    assert "NOT_ALLOWED" in bert("topic", "cocoa", status=1)
    anna("role", "bert", "moderator")
    bert("topic", "cocoa", "--seen", str(version + 2))
    assert "NOT_ALLOWED" in bert("kick", "anna", status=1)
    assert "a private room stays private" in anna("kind", "public", status=1)
    done("send", address, room, "spam", "--name", "anna")
    with Tail(address, room, "--since", "0") as tail:
        wait_until(lambda: len(tail.entries) == 2, "both messages", 60)
    spam = str(tail.entries[1]["seq"])
    assert "NOT_ALLOWED" in bert("redact", spam, status=1)
    anna("redact", spam, "--reason", "spam")
    assert "NO_SUCH_ENTRY" in anna("redact", spam, status=1)
    anna("role", "bert", "none")
    anna("keep", "--age", "30d", "--messages", "1000", "--yes")
    assert "30 days and at most 1,000 messages are kept" in anna("show")
    shown = json.loads(anna("show", "--json"))
    assert shown["keep"] == [2592000, 1000, 0]
    assert len(bytes.fromhex(shown["identity"])) == 8
    assert "NOT_ALLOWED" in bert("keep", status=1)
    anna("ban", "bert", "--for", "1h")
    assert "unban first" in anna("invite", "bert", status=1)
    refusal = done("send", address, room, "hi", "--name", "bert", status=1)
    assert re.search(r"BANNED: banned from this room until \d{4}-[-0-9]+ [:0-9]+ UTC$", refusal)
    assert "banned until" in anna("show")
    anna("unban", "bert")
    anna("close")
    assert "READ_ONLY" in done("send", address, room, "hi", "--name", "anna", status=1)
    anna("open")
    done("send", address, room, "hi", "--name", "anna")
    anna("delete", "--reason", "over", "--yes")
    assert "NO_SUCH_ROOM" in anna("show", status=1)


def test_a_direct_message_of_ones_own(people: Relay) -> None:
    """By its number in the own inbox; also when the recipient accepts no more messages."""
    address = people.address
    done("send", address, "@bert", "secret", "--name", "anna")
    done("send", address, "@bert", "other", "--name", "anna")
    found = done("history", address, "@bert", "--json", "--name", "anna")
    sent = [json.loads(line) for line in found.splitlines()]
    secret = next(str(one["seq"]) for one in sent if one.get("body") == "secret")
    done("account", "block", address, "anna", "--name", "bert")
    arguments = ("room", "redact", address, "@bert")
    assert "NOT_ACCEPTED" in done(*arguments, secret, "--reason", "you", "--name", "anna", status=1)
    done(*arguments, secret, "--name", "anna")
    seen = done("history", address, "@anna", "--name", "bert")
    assert "secret" not in seen
    assert "other" in seen
    assert "no message 999" in done(*arguments, "999", "--name", "anna", status=1)
    done("account", "unblock", address, "anna", "--name", "bert")


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["ban", "ROOM", "bert", "--for", "soon"], "invalid time 'soon': use 30s, 10m, 2h or 7d"),
        (["kind", "ROOM", "secret"], "is not one of public, private, announce"),
        (["role", "ROOM", "bert", "king"], "is not one of none, member, moderator, owner"),
        (["redact", "ROOM", "first"], "is not the number of a message"),
        (["redact", "ROOM", "9" * 5000], "is not the number of a message"),
        (["keep", "ROOM", "--size", "much"], "invalid size 'much': use 500K, 100M or 2G"),
        (["topic", "ROOM", "x" * 401], "allowed are at most 400"),
        (["create", "ROOM", "--topic", "x" * 401], "allowed are at most 400"),
        (["create", "ROOM", "--topic", "tea \udcff"], "it is not text"),
        (["show", "a"], "invalid room name"),
    ],
)
def test_mistakes(people: Relay, room: str, args: list[str], problem: str) -> None:
    """A one-line error, and nothing is sent."""
    command, name, *rest = args
    name = room if name == "ROOM" else name
    output = done("room", command, people.address, name, *rest, "--name", "anna", status=2)
    assert problem in " ".join(output.split())


def test_a_guest_is_not_told_that_a_room_is_theirs(relay: Relay, room: str) -> None:
    """A guest may create a public room, which has no owner then."""
    output = done("room", "create", relay.address, room, "--name", "~gus")
    assert output == f"{room} has no owner: a guest cannot own a room\n"


def test_a_guest_in_a_room_that_is_not_there_yet(relay: Relay, room: str) -> None:
    """The chat lists what a guest may create, and refuses /private; nothing is sent before that."""
    begun = (
        f"-!- there is no room {room} yet: if you may create rooms here, the first message begins"
        " it as a public one, without an owner"
    )
    found = run_relay("chat", relay.address, room, "--name", "~gus", text="/private\n")
    assert begun in found.stderr
    assert "/private" not in found.stderr
    assert "refused: NOT_ALLOWED: a guest cannot own a room" in found.stderr
    found = run_relay("chat", relay.address, room, "--name", "~gus", text="hello\n")
    assert begun in found.stderr, "it was not created"
    assert "~gus has created the room, public" in found.stderr
    assert f"{room} is public\n" in done("room", "show", relay.address, room, "--name", "~gus")


def test_changes_in_a_tail(people: Relay, room: str) -> None:
    """With --changes as objects of their own; without, messages only."""
    address = people.address
    done("send", address, room, "hi", "--name", "anna")
    done("room", "ban", address, room, "bert", "--reason", "spam", "--name", "anna")
    with Tail(address, room, "--since", "0", "--changes") as tail:
        wait_until(lambda: len(tail.entries) == 3, "the room's entries", 60)
        created, message, banned = tail.entries
    assert created["change"] == {"what": "create", "kind": "public", "listed": True}
    assert message["body"] == "hi"
    assert banned["sender"] == "anna"
    assert banned["change"] == {"what": "ban", "person": "bert", "text": "spam"}


def test_two_people_at_terminals(people: Relay, room: str) -> None:
    """The commands that IRC users know, and what the other user sees."""
    address = people.address
    with (
        Terminal("chat", address, room, "--name", "anna") as anna,
        Terminal("chat", address, room, "--name", "bert") as bert,
    ):
        anna.shows(f"in {room} as anna")
        bert.shows(f"in {room} as bert")
        anna.press("hello\r")
        bert.shows("anna has created the room, public")
        bert.press("/topic mine\r")
        bert.shows("NOT_ALLOWED")
        anna.press("/topic tea and biscuits\r")
        bert.shows("anna has set the topic: ")
        anna.press("/mute bert 1h too loud\r")
        bert.shows("anna has muted bert until ")
        bert.press("but\r")
        bert.shows("not stored (MUTED")
        anna.press("/unmute bert\r")
        bert.shows("lifted the ban or mute on bert")
        anna.press("/op bert\r")
        bert.shows("anna has made bert a moderator")
        anna.press("/room\r")
        anna.shows("bert: moderator")
        anna.press("/list\r")
        anna.shows(f"{room} public, 2 members, you are an owner")
        anna.press("/deop bert\r")
        anna.shows("anna has made bert a member")
        anna.press("/kick bert out\r")
        bert.shows(f"no longer in {room}: KICKED_OUT")
        bert.press("is anybody there\r")
        bert.shows("is anybody there")
        bert.shows("not sent, you are no longer in")
        bert.press("/who\r")
        bert.shows(f"refused: you are no longer in {room}")
        bert.press("/join den\r")
        bert.shows("a chat is in one room")
        bert.press("/join\r")
        bert.shows(f"in {room} again")
        anna.press("welcome back\r")
        bert.shows("welcome back")
        bert.press(f"/join {room}\r")
        bert.shows(f"you are in {room}")
        anna.press("/ban bert\r")
        bert.shows(f"no longer in {room}: BANNED")
        anna.press("/ban\r")
        anna.shows("/ban takes a name; not sent")
        anna.press("/delete\r")
        anna.shows(f"to delete this room for good: /delete {room}")
        anna.press("/delete den\r")
        anna.press("still here\r")
        anna.shows("anna| \x1b[0mstill here")
        anna.press(f"/delete {room}\r")
        anna.shows("anna has deleted the room")
        anna.press("/quit\r")
        assert anna.ends() == 0


def test_a_room_that_is_not_there_yet(people: Relay, room: str) -> None:
    """The chat reports it, and /private creates it: the first message after it is private."""
    address = people.address
    with Terminal("chat", address, room, "--name", "anna") as anna:
        anna.shows(f"there is no room {room} yet")
        anna.shows(f"{room}>")
        anna.press("/topic tea\r")
        anna.shows(f"refused: there is no room {room} yet")
        anna.press("/private\r")
        anna.shows("anna has created the room, private")
        anna.press("a secret\r")
        anna.shows("\x1b[0ma secret")
        anna.press("/quit\r")
        assert anna.ends() == 0
    assert "is private" in done("tail", address, room, "--since", "0", "--name", "bert", status=1)
    with Terminal("chat", address, room, "--name", "anna") as anna:
        anna.shows("\x1b[0ma secret")
        assert "there is no room" not in anna.text


@pytest.mark.parametrize(
    "typed",
    ["/private", "/announce", "/private now", "/query b@d", "/privte", "/mode +i", " /private"],
)
def test_a_failed_choice_creates_no_public_room(people: Relay, room: str, typed: str) -> None:
    """What is typed next, with the refusal on the screen, does not create the room."""
    address = people.address
    with Terminal("chat", address, room, "--name", "~gus") as gus:
        gus.shows(f"{room}>")
        gus.press(f"{typed}\r")
        gus.shows("refused: " if typed in ("/private", "/announce") else "; not sent")
        gus.press("for few\r")
        gus.shows("has to choose first")
        gus.press("/query\r" if "query" in typed else "/public\r")
        gus.press("for all\r")
        gus.shows("\x1b[0mfor all")
        gus.press("/quit\r")
        gus.ends()
    stored = done("history", address, room, "--name", "anna")
    assert ("for all" in stored, "for few" in stored) == (True, False)


@pytest.mark.parametrize(
    "line",
    [
        "/private", "/announce", "/ban anna", "/keep 1d ROOM", "/private now", "/kick",
        "/ban anna 5x", "/keep 1x", "/query b@d", "/join den", "/privte", "/qurey anna", "/mode +i",
        "/", "/private\tROOM", " /private", "\t/ban anna", "\ufeff/query anna",
    ],
)  # fmt: skip
def test_a_program_sends_nothing_after_a_failed_choice(
    people: Relay, room: str, line: str, tmp_path: Path
) -> None:
    """A chat without a terminal sends no later line: they were for fewer or other people."""
    address = people.address
    done("send", address, room, "hello", "--name", "anna")
    refused = line in ("/private", "/announce", "/ban anna", "/keep 1d ROOM")
    line = line.replace("ROOM", room)
    with Person(address, "bert", room, tmp_path) as bert:
        bert.types(line)
        bert.is_told("refused: " if refused else "not sent")
        bert.types("a secret", "/topic secret", "/query anna", "for anna")
        for held in ("a secret", "/topic secret"):
            bert.is_told(f"): {held}")
    assert bert.process.returncode == 1
    for command in ("history",), ("room", "show"):
        assert "secret" not in done(*command, address, room, "--name", "anna")
    direct = done("history", address, "@me", "--name", "anna")
    assert ("for anna" in direct, "secret" in direct) == (True, False)


@pytest.mark.parametrize(
    "line",
    [
        b"/private\xff",
        b"/ban \xff",
        b"\xff\xfe/\0p\0r\0i\0v\0a\0t\0e\0",
        b"/query " + b"x" * 40_000,
    ],
)
def test_a_command_that_cannot_be_read_holds_as_a_mistyped_one_does(
    people: Relay, room: str, line: bytes
) -> None:
    """What is not UTF-8, or too long, is not sent, and may have been about who reads the rest."""
    typed = line.decode(errors="surrogateescape") + "\na secret\n"
    told = run_relay("chat", people.address, room, "--name", "anna", text=typed)
    assert told.returncode == 1
    assert "line 1 was not sent" in told.stderr
    assert "): a secret" in told.stderr
    assert "NO_SUCH_ROOM" in done("room", "show", people.address, room, "--name", "anna", status=1)


def test_an_unknown_command_ends_a_private_conversation(
    people: Relay, room: str, tmp_path: Path
) -> None:
    """Of a program: what follows a mistyped /query may be for somebody else, or for the room."""
    address = people.address
    done("send", address, room, "hello", "--name", "anna")
    with Person(address, "bert", room, tmp_path) as bert:
        bert.types("/query anna", "for anna", "/qurey", "a secret")
        bert.is_told("(/qurey is unknown, and may have been about who reads this): a secret")
        bert.types("/query", "/public", "more")
        bert.is_told("): more")
    direct = done("history", address, "@me", "--name", "anna")
    assert ("for anna" in direct, "a secret" in direct) == (True, False)
    assert "more" not in done("history", address, room, "--name", "anna")


@pytest.mark.parametrize(
    ("failed", "why", "others", "makes"),
    [
        (
            "/ban Bert 10x",
            "/kick or /ban has to remove bert first",
            "/mute bert, /unmute bert, /invite bert, /op bert, /deop bert, /unban bert, /public",
            "/ban bert 10m too loud",
        ),
        ("/ban", "/kick or /ban has to remove somebody first", "/mute bert", "/kick BERT"),
        (
            "/keep 1x",
            "/keep has to choose first how long messages are kept",
            "/public, /kick bert",
            "/keep default",
        ),
    ],
)
def test_only_the_same_choice_releases_what_is_held(
    people: Relay,
    room: str,
    failed: str,
    why: str,
    others: str,
    makes: str,
    tmp_path: Path,
) -> None:
    """Other changes, also of the same person, do not make up for it."""
    address = people.address
    done("room", "create", address, room, "--name", "anna")
    done("room", "enter", address, room, "--name", "bert")
    with Person(address, "anna", room, tmp_path) as anna:
        anna.types(failed)
        for number, other in enumerate(others.split(", ")):
            anna.types(other, f"held {number}")
            anna.is_told(f"not sent ({why}): held {number}")
        anna.types(makes, "after")
        anna.sees("after")
    assert "held" not in done("history", address, room, "--name", "anna")


def test_a_mistake_does_not_hold_what_was_typed_before_it(
    people: Relay, room: str, tmp_path: Path
) -> None:
    """Although it still waits for the outcome of a change."""
    address = people.address
    done("room", "create", address, room, "--name", "anna")
    with Person(address, "anna", room, tmp_path) as anna:
        anna.types("/topic tea", "line A", "/reply words", "/ban", "line B", "/topic B")
        anna.sees("line A")
        for held in ("line B", "/topic B"):
            anna.is_told(f"(/kick or /ban has to remove somebody first): {held}")
    stored = done("history", address, room, "--name", "anna")
    assert ("line A" in stored, "line B" in stored) == (True, False)


def test_what_is_unread_is_told_and_marked(relay: Relay, room: str) -> None:
    """Dora returns to another room: she is told once, and reads."""
    address, second = relay.address, f"{room}-2"

    def unread() -> dict[str, int]:
        found = json_lines("room", "list", address, "--mine", "--json", "--name", "dora")
        return {one["name"]: one["unread"] for one in found}

    for name in ("carl", "dora"):  # of no other test: the chat lists all their rooms
        done("register", address, "--name", name)
    for each in (room, second):
        done("room", "create", address, each, "--name", "carl")
    done("room", "enter", address, room, "--name", "dora")
    done("room", "invite", address, second, "dora", "--name", "carl")
    for text in ("one", "two"):
        done("send", address, room, text, "--name", "carl")
    for to in (room, "@carl", "@dora"):
        done("send", address, to, "a script of dora's", "--name", "dora")
    assert unread() == {room: 2, second: 0}
    with Terminal("chat", address, f"{room}-3", "--name", "dora") as dora:
        dora.shows(f"unread: {room} (2)")
        dora.shows(f"invited to: {second};")
        assert "since you were last here" not in dora.text
        dora.press("/quit\r")
        assert dora.ends() == 0
    with Terminal("chat", address, room, "--name", "dora") as dora:
        dora.shows("two")
        dora.press("/quit\r")
        assert dora.ends() == 0
    assert unread() == {room: 0, second: 0}


def test_who_is_there_and_what_is_read(people: Relay, room: str) -> None:
    """For scripts: each answer as JSON; an error is one line and an exit status."""
    address = people.address

    def anna(command: str, *args: str) -> list[dict[str, Any]]:
        return json_lines("room", command, address, room, *args, "--json", "--name", "anna")

    assert anna("create") == [{"room": room, "done": "create", "arguments": []}]
    assert anna("read") == [{"room": room, "done": "read", "arguments": []}], "nothing to read"
    assert anna("close") == [{"room": room, "done": "close", "arguments": []}]
    assert anna("open") == [{"room": room, "done": "open", "arguments": []}]
    assert anna("who") == []
    done("room", "enter", address, room, "--name", "bert")
    done("send", address, room, "hi", "--name", "bert")
    assert anna("role", "bert", "moderator") == [
        {"room": room, "done": "role", "arguments": ["bert", "moderator"]}
    ]
    (mine,) = [one for one in anna_lists(address) if one["name"] == room]
    assert mine["unread"] == 1
    anna("read")
    (mine,) = [one for one in anna_lists(address) if one["name"] == room]
    assert mine["unread"] == 0
    with Tail(address, room, "--name", "bert"):
        wait_until(lambda: [one["name"] for one in anna("who")] == ["bert"], "bert", 60)
        assert f"1 person in {room}: bert" in done("room", "who", address, room, "--name", "anna")
    assert "NO_SUCH_ROOM" in done(
        "room", "topic", address, f"{room}-x", "tea", "--name", "anna", status=1
    )
    done("room", "kind", address, room, "private", "--name", "anna")
    done("register", address, "--name", "carla")
    for command in ("who", "read"):
        output = done("room", command, address, room, "--name", "carla", status=1)
        assert len(output.splitlines()) == 1
        assert "MEMBERS_ONLY" in output


def anna_lists(address: str) -> list[dict[str, Any]]:
    return json_lines("room", "list", address, "--mine", "--json", "--name", "anna")


def test_who_is_invited_is_told_at_once(relay: Relay, room: str) -> None:
    """At a terminal in another room; after a lost connection, when it is back."""
    address, others = relay.address, f"{room}-2"
    for name in ("ginny", "hugo"):
        done("register", address, "--name", name)
    for each in (room, others):
        done("room", "create", address, each, "--kind", "private", "--name", "ginny")
    with Terminal("chat", address, f"{room}-3", "--name", "hugo") as hugo:
        hugo.shows(f"in {room}-3 as hugo")
        done("room", "invite", address, room, "hugo", "--name", "ginny")
        hugo.shows(f"ginny has invited you to: {room};")
        hugo.press("/quit\r")
        assert hugo.ends() == 0


def test_old_changes_that_are_shown_change_nothing(relay: Relay, room: str) -> None:
    """A user who reads the entries of an earlier leave is still a member, and marks them as
    read.
    """
    address = relay.address
    for name in ("erna", "fred"):
        done("register", address, "--name", name)
    done("room", "create", address, room, "--name", "erna")
    for command in ("enter", "leave", "enter"):
        done("room", command, address, room, "--name", "fred")
    done("send", address, room, "one", "--name", "erna")
    with Terminal("chat", address, room, "--name", "fred", "--last", "2") as fred:
        fred.shows("one")
        fred.press("/history 1\r")
        fred.shows("fred is no longer a member")
        done("send", address, room, "two", "--name", "erna")
        fred.shows("two")
        fred.press("/quit\r")
        assert fred.ends() == 0
    (found,) = json_lines("room", "list", address, "--mine", "--json", "--name", "fred")
    assert (found["name"], found["unread"]) == (room, 0)


def test_a_chat_whose_room_was_deleted_and_created_again(
    people: Relay, room: str, tmp_path: Path
) -> None:
    """Nothing reaches the new room before the user has joined it, and knows that it is another."""
    address = people.address
    done("room", "create", address, room, "--name", "anna")
    with Person(address, "bert", room, tmp_path) as bert:
        bert.is_told(f"in {room} as bert")
        done("room", "delete", address, room, "--name", "anna", "--yes")
        bert.is_told(f"no longer in {room}: NO_SUCH_ROOM")
        done("room", "create", address, room, "--name", "carl")
        bert.types("a secret", "/topic secret")
        bert.is_told(f"not sent, you are no longer in {room}; /join follows it again, if you may")
        bert.is_told("refused: NO_SUCH_ROOM: that room no longer exists; join again")
        bert.types("/join")
        bert.is_told(f"in {room}, which is another room: the one before no longer exists")
        bert.types("hello")
    assert bert.process.returncode == 1
    found = done("history", address, room, "--name", "carl")
    assert ("secret" in found, "hello" in found) == (False, True)


def test_a_chat_whose_room_is_another_one_after_a_kick(
    people: Relay, room: str, tmp_path: Path
) -> None:
    """It was deleted while the user was out of it: the chat must not say "in it again"."""
    address = people.address
    done("room", "create", address, room, "--name", "anna")
    with Person(address, "bert", room, tmp_path) as bert:
        bert.is_told(f"in {room} as bert")
        done("room", "kick", address, room, "bert", "--name", "anna")
        bert.is_told(f"no longer in {room}: KICKED_OUT")
        bert.types("/join")
        bert.is_told(f"in {room} again")
        done("room", "kick", address, room, "bert", "--name", "anna")
        done("room", "delete", address, room, "--name", "anna", "--yes")
        done("room", "create", address, room, "--name", "carl")
        gone = f"no longer in {room}"
        wait_until(lambda: sum(gone in line for line in bert.notices) == 2, "the second kick")
        bert.types("/join")
        bert.is_told(f"in {room}, which is another room: the one before no longer exists")
