"""``relay ctl users``, ``user`` and ``room``: accounts and rooms of a relay on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

import click

from relay.chat.accounts import requests as of_accounts
from relay.chat.rooms import requests as of_rooms
from relay.chat.rooms import shown
from relay.cli.arguments.names import checked_name, checked_room
from relay.cli.arguments.options import days_option, document_option
from relay.cli.arguments.room_options import AGE, FOR, MESSAGES, SIZE
from relay.cli.arguments.text_argument import TextCommand
from relay.cli.client_commands.room import confirm_change as confirm_room_change
from relay.cli.client_commands.user import DONE, known
from relay.cli.client_commands.user import confirm_change as confirm_account_change
from relay.cli.console.confirming import YES
from relay.cli.console.json_lines import room_object, user_object
from relay.cli.console.printing import print_json, print_line
from relay.cli.process.exits import Exit
from relay.cli.server_commands.ctl_client import Server
from relay.client import account_calls, room_calls
from relay.terminal.room_notices import info_lines
from relay.terminal.screens import stderr_notice

ACCOUNT_ACTIONS: Final = ("show", "add", "disable", "enable", "reset", "rm", "promote", "demote")
CALLED: Final = {"open": "reopen"}
"""The actions of which ``relay room`` calls the command otherwise than the library its call."""
ROOM_ACTIONS: Final = (
    "show",
    *CALLED,
    *(
        word
        for word in get_args(room_calls.RoomAction)
        if word not in ("enter", "leave", *CALLED.values())
    ),
)
ENDS_OPERATOR: Final = ("demote", "disable", "reset", "rm")
USERS: Final = 1000
"""Accounts per request."""
_Found = Callable[[], Server]


@click.command()
@document_option
@click.argument("action", metavar="ACTION", type=click.Choice(ACCOUNT_ACTIONS))
@click.argument("name", metavar="NAME")
@click.option("--operator", is_flag=True, help="With add: the account is an operator's.")
@days_option("With add and reset: how long the invitation is valid.")
@YES
@click.pass_obj
def user(
    found: _Found,
    as_json: bool,
    action: str,
    name: str,
    operator: bool,
    days: float,
    yes: bool,
) -> int:
    """Show or change the account NAME, like "relay user", for the administrator of the relay.

    ACTION is show, add, disable, enable, reset, rm, promote or demote. reset and rm cannot be
    undone: at a terminal you are asked, a script passes --yes.
    """
    handle = checked_name(name) or name
    if action == "show":
        shown_user = known(_user(found(), handle))
        document = user_object(shown_user)
        lines = [
            f"{handle} {shown_user.state}{' operator' if shown_user.operator else ''}",
            *(f"  device {key}" for key in document["devices"]),
        ]
        _print(document, lines, as_json)
        return Exit.OK
    confirm_account_change(action, handle, yes=yes)
    was_operator = action in ENDS_OPERATOR and _user(found(), handle).operator
    what = {"rm": "remove", "add": "add-operator" if operator else "add"}.get(action, action)
    request, invitation = account_calls.change(what, days)
    _ask(found(), "user", handle, of_accounts.pack(request))
    document = {"name": handle, "done": action, "invitation": invitation}
    lines = [f"{handle} {DONE[action]}", *([] if invitation is None else [invitation])]
    _print(document, lines, as_json)
    if was_operator and not _operator_is_left(found()):
        stderr_notice("no operator is left: relay ctl user promote NAME makes one")
    return Exit.OK


def _user(server: Server, name: str) -> account_calls.User:
    content = _ask(server, "user", name, of_accounts.pack(of_accounts.Show()))
    return account_calls.as_user(name, content)


def _operator_is_left(server: Server) -> bool:
    """Return True if any account that can log in is an operator."""
    after = ""
    while True:
        answer = server.ask("users", limit=USERS, after=after)
        if any(one["operator"] and one["state"] == "active" for one in answer["items"]):
            return True
        if not answer["items"] or not answer["more"]:
            return bool(answer["missing"])  # a worker that does not answer may have one
        after = answer["items"][-1]["name"]


@click.command(cls=TextCommand, example="topic ROOM -- TEXT", undone="nothing was changed")
@document_option
@click.argument("action", metavar="ACTION", type=click.Choice(ROOM_ACTIONS))
@click.argument("room", metavar="ROOM")
@click.argument("arguments", metavar="[PERSON] [ROLE|KIND|TEXT|SEQ]", nargs=-1)
@click.option("--reason", default="", metavar="TEXT", help="Everybody sees it.")
@FOR
@AGE
@MESSAGES
@SIZE
@click.option(
    "--unlisted",
    is_flag=True,
    help="With kind: keep it out of the lists of people who are not members.",
)
@YES
@click.pass_obj
def room(
    found: _Found,
    as_json: bool,
    action: Any,  # noqa: ANN401  # click has checked it
    room: str,
    arguments: tuple[str, ...],
    reason: str,
    seconds: int,
    age: int,
    messages: int,
    size: int,
    unlisted: bool,
    yes: bool,
) -> int:
    """Show or change ROOM, like "relay room"; the entries are by "operator".

    ACTION is show, topic, title, kind, role, invite, kick, ban, unban, mute, unmute, close, open,
    keep, redact or delete. --for applies to ban and mute; --age, --messages and --size apply to
    keep. keep and delete remove messages permanently: at a terminal you are asked, a script passes
    --yes.
    """
    name = checked_room(room)
    action = CALLED.get(action, action)
    if action == "show":
        info = room_calls.as_info(name, _parts(found(), name))
        _print(room_object(info), info_lines(info), as_json)
        return Exit.OK
    rest = list(arguments)
    person = rest.pop(0) if action in room_calls.ABOUT_PERSONS and rest else None
    text = rest.pop(0) if rest else ""
    if rest or (action == "redact" and not text.isdecimal()):
        raise click.UsageError(f"{action}: see relay ctl room --help for what it takes")
    given: Any = text
    try:
        request = room_calls.change(
            action,
            person=person,
            text=text if action in ("topic", "title") else reason,
            seconds=seconds,
            kind=given,
            listed=not unlisted,
            role=given,
            seq=int(text) if action == "redact" else 0,
            keep=(age, messages, size),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    confirm_room_change(action, name, (age, messages, size), yes=yes)
    _ask(found(), "room", name, of_rooms.pack(request, of_rooms.ANYTHING_SEEN))
    document = {"room": name, "done": action, "arguments": list(arguments)}
    _print(document, [" ".join((name, action, *arguments)) + ": done"], as_json)
    return Exit.OK


def _parts(server: Server, name: str) -> list[shown.Shown]:
    """Return the state of a room, which may need several requests."""
    parts: list[shown.Shown] = []
    after = ""
    while True:
        packed = of_rooms.pack(of_rooms.Show(after), 0)
        parts.append(shown.unpack(_ask(server, "room", name, packed)))
        if parts[-1].end:
            return parts
        after = max(parts[-1].room.people)


def _ask(server: Server, do: str, name: str, content: bytes) -> bytes:
    answer = server.ask(do, name=name, content=content.hex())
    return bytes.fromhex(answer["content"])


def _print(document: dict[str, Any], lines: list[str], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        for line in lines:
            print_line(line)
