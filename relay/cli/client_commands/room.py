"""``relay room``: the rooms of a server, and the rights in them, for people and scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from relay import limits
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.names import checked_log, checked_room
from relay.cli.arguments.options import LINES, Target, places, target_options
from relay.cli.arguments.room_options import AGE, FOR, MESSAGES, SIZE
from relay.cli.arguments.text_argument import TextCommand
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.console.confirming import YES, confirm
from relay.cli.console.json_lines import room_object
from relay.cli.console.printing import print_error_line, print_json, print_line
from relay.cli.process.exits import CommandError, Exit
from relay.client import arguments
from relay.client.aio import Client
from relay.client.arguments import ME
from relay.client.events import LogEntry
from relay.client.lists import EMPTY_PAGES_MAX, is_last_page
from relay.client.room_calls import KINDS, ROLES, RoomAction, RoomKind, RoomRole
from relay.terminal.notices import members_notice
from relay.terminal.room_list import listed_rooms
from relay.terminal.room_notices import info_lines, keep_words, list_line
from relay.terminal.screens import stderr_notice

UNLISTED: Final = click.option(
    "--unlisted", is_flag=True, help="Keep it out of the lists of people who are not members."
)
REASON: Final = click.option("--reason", default="", metavar="TEXT", help="Everybody sees it.")
SEEN: Final = click.option(
    "--seen",
    type=click.IntRange(0, limits.U63_MAX),
    metavar="VERSION",
    help="Only if nobody has changed that since this version of the room (relay room show --json).",
)


@click.group(cls=CommandGroup)
def room() -> None:
    """Rooms: list, show, create, change, and choose who may read and write in them."""


def _command(
    name: str, *required: str, also: tuple[Callable[..., Any], ...] = ()
) -> Callable[[Callable[..., Any]], click.Command]:
    def make(function: Callable[..., Any]) -> click.Command:
        wrapped = who_options(program=False, guests=True)(target_options(function))
        for option in also:
            wrapped = option(wrapped)
        placed = places(*required, optional=[])(wrapped)
        if "TEXT" not in required:
            return room.command(name)(placed)
        example = " ".join(("ADDRESS", *required)).replace("TEXT", "-- TEXT")
        as_text = room.command(name, cls=TextCommand, example=example, undone="nothing was changed")
        return as_text(placed)

    return make


MINE: Final = click.option(
    "--mine", is_flag=True, help="Only rooms in which you have a role, or to which you are invited."
)


@_command("list", also=(LINES, MINE))
def list_(target: Target, who: Who, as_json: bool, mine: bool) -> int:
    """List the rooms that you may see, with unread counts for yours."""

    async def use(client: Client) -> int:
        rooms, missing = await listed_rooms(client, mine=mine)
        for found in rooms:
            if as_json:
                print_json(found._asdict())
            else:
                print_line(list_line(found))
        if missing:
            stderr_notice(missing)
        return Exit.OK

    return run_connected(target, who, use)


@_command("show", "ROOM", also=(LINES,))
def show(target: Target, who: Who, as_json: bool, room: str) -> int:
    """Show a room: kind, topic, and the roles of its members."""
    name = checked_room(room)

    async def use(client: Client) -> int:
        found = await client.room_info(name)
        if as_json:
            print_json(room_object(found))
        else:
            for number, line in enumerate(info_lines(found)):
                print_line(f"  {line}" if number else line)
        return Exit.OK

    return run_connected(target, who, use)


@_command(
    "create",
    "ROOM",
    also=(
        LINES,
        UNLISTED,
        click.option("--topic", default="", metavar="TEXT", help="The topic."),
        click.option("--kind", type=click.Choice(list(KINDS)), default="public", show_default=True),
    ),
)
def create(
    target: Target,
    who: Who,
    as_json: bool,
    room: str,
    kind: RoomKind,
    topic: str,
    unlisted: bool,
) -> int:
    """Create a room, and own it."""
    name, most = checked_room(room), limits.ROOM_TOPIC_BYTES_MAX
    try:
        arguments.short_text("topic", topic, most, most)
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def use(client: Client) -> int:
        await client.create_room(name, kind, listed=not unlisted)
        if topic:
            await client.change_room(name, "topic", text=topic)
        yours = f"{name} is yours"
        if client.device_key is None:
            yours = f"{name} has no owner: a guest cannot own a room"
        _tell(as_json, name, "create", [], yours)
        return Exit.OK

    return run_connected(target, who, use)


@_command("who", "ROOM", also=(LINES,))
def who_is_here(target: Target, who: Who, as_json: bool, room: str) -> int:
    """Show who follows a room now: at most 200 people, and the total."""
    name = checked_room(room)

    async def use(client: Client) -> int:
        await client.join(name)
        found = await client.who(name)
        others = [one for one in found.members if one.name != client.name or one.connections > 1]
        if as_json:
            for member in others:
                print_json(member._asdict())
        else:
            less = len(found.members) - len(others)
            shown = found._replace(total=found.total - less, members=tuple(others))
            print_line(members_notice(shown))
        return Exit.OK

    return run_connected(target, who, use)


@_command("read", "ROOM", also=(LINES,))
def read(target: Target, who: Who, as_json: bool, room: str) -> int:
    """Mark a room as read up to its last message, on all your devices."""
    name = checked_room(room)

    async def use(client: Client) -> int:
        await client.join(name)
        last = await _last_message(client, name)
        if last is not None:
            await client.mark_read(last)
        _tell(as_json, name, "read", [], f"{name} is marked as read")
        return Exit.OK

    return run_connected(target, who, use)


async def _last_message(client: Client, room: str) -> LogEntry | None:
    """Return the last entry that is not a change of the room; None: there is none.

    Raises:
        CommandError: it was not found within the pages of any honest server.
    """
    before: int | None = None
    for number in range(EMPTY_PAGES_MAX):
        page = await client.history(room, before=before, count=1000 if number else 50)
        for entry in reversed(page.entries):
            if isinstance(entry, LogEntry):
                return entry
        if is_last_page(page, before):
            return None
        before = page.next
    raise CommandError(
        f"no message was found in {EMPTY_PAGES_MAX} pages: nothing was marked as read"
    )


def _tell(as_json: bool, room: str, done: str, arguments: list[str], words: str) -> None:
    """Report what was done: to a program on stdout, like ``relay ctl room``."""
    if as_json:
        print_json({"room": room, "done": done, "arguments": arguments})
    else:
        print_error_line(words)


def _erase_direct(
    target: Target, who: Who, peer: str, seq: int, reason: str, *, as_json: bool
) -> int:
    """Erase a direct message of one's own, by its number in one's own inbox."""

    async def use(client: Client) -> int:
        await client.join(ME)
        page = await client.history(peer, before=seq + 1, count=1)
        found = page.entries[-1] if page.entries else None
        if not isinstance(found, LogEntry) or found.seq != seq:
            raise CommandError(f"there is no message {seq} between you and {peer[1:]}")
        await client.redact(found, reason)
        _tell(as_json, peer, "redact", [str(seq)], f"the message to {peer[1:]} is erased")
        return Exit.OK

    return run_connected(target, who, use)


def confirm_change(action: RoomAction, room: str, keep: tuple[int, int, int], *, yes: bool) -> None:
    """Have a person confirm what removes messages permanently. Raises UsageError, CommandError."""
    if action == "delete":
        confirm(f"The room {room} will be deleted, with all its messages", room, yes=yes)
    elif action == "keep" and any(keep):
        confirm(f"In the room {room} {keep_words(keep)}; the rest is removed", room, yes=yes)


def _changing(
    name: str,
    action: RoomAction,
    help_text: str,
    done: str,
    *arguments: str,
    also: tuple[Callable[..., Any], ...] = (),
) -> None:
    """Add a command that changes a room."""

    def function(
        target: Target,
        who: Who,
        as_json: bool,
        room: str,
        seen: int | None = None,
        person: str | None = None,
        kind: RoomKind | None = None,
        role: RoomRole | None = None,
        unlisted: bool = False,
        reason: str = "",
        text: str = "",
        seconds: int = 0,
        seq: str = "0",
        age: int = 0,
        messages: int = 0,
        size: int = 0,
        yes: bool = False,
    ) -> int:
        if not (seq.isascii() and seq.isdigit() and len(seq) < 20):
            raise click.UsageError(f"{seq!r} is not the number of a message")
        if action == "redact" and room.startswith("@"):
            return _erase_direct(target, who, checked_log(room), int(seq), reason, as_json=as_json)
        checked = checked_room(room)
        if kind is not None and kind not in KINDS:
            raise click.UsageError(f"{kind!r} is not one of {', '.join(KINDS)}")
        if role is not None and (role not in ROLES or role == "invited"):
            raise click.UsageError(f"{role!r} is not one of none, member, moderator, owner")
        confirm_change(action, checked, (age, messages, size), yes=yes)

        async def use(client: Client) -> int:
            try:
                await client.change_room(
                    checked,
                    action,
                    person,
                    text=text or reason,
                    seconds=seconds,
                    kind=kind,
                    listed=not unlisted,
                    role=role,
                    seq=int(seq),
                    keep=(age, messages, size),
                    seen=seen,
                )
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            kept = keep_words((age, messages, size))
            words = done.format(room=checked, person=person, role=role, kind=kind, keep=kept)
            given = [person, role, kind, text, seq if action == "redact" else ""]
            _tell(as_json, checked, name, [one for one in given if one], words)
            return Exit.OK

        return run_connected(target, who, use)

    function.__doc__ = help_text
    _command(name, "ROOM", *arguments, also=(LINES, SEEN, *also))(function)


_changing("topic", "topic", "Set the topic of a room.", "the topic of {room} is set", "TEXT")
_changing("title", "title", "Set the title of a room.", "the title of {room} is set", "TEXT")
_changing(
    "kind",
    "kind",
    "Choose who may read and write: public, private (invited people), announce (moderators and "
    "owners write). A"
    " private room stays private.",
    "{room} is {kind}",
    "KIND",
    also=(UNLISTED,),
)
_changing(
    "role",
    "role",
    "Give somebody a role: owner, moderator, member, or none.",
    "{person} is {role} in {room}",
    "PERSON",
    "ROLE",
)
_changing(
    "invite", "invite", "Invite somebody to a room.", "{person} is invited to {room}", "PERSON"
)
_changing(
    "kick",
    "kick",
    "Remove somebody from a room.",
    "{person} was removed from {room}",
    "PERSON",
    also=(REASON,),
)
_changing(
    "ban",
    "ban",
    "Remove somebody from a room, and do not let them back in.",
    "{person} is banned from {room}",
    "PERSON",
    also=(REASON, FOR),
)
_changing("unban", "unban", "Lift a ban.", "{person} is no longer banned from {room}", "PERSON")
_changing(
    "mute",
    "mute",
    "Stop somebody from writing; they can still read.",
    "{person} is muted in {room}",
    "PERSON",
    also=(REASON, FOR),
)
_changing(
    "unmute",
    "unmute",
    "Let somebody write again.",
    "{person} is no longer muted in {room}",
    "PERSON",
)
_changing("close", "close", "Close a room: nobody can write in it.", "{room} is closed")
_changing("open", "reopen", "Open a closed room again.", "{room} is open")
_changing(
    "enter",
    "enter",
    "Become a permanent member of a room, or accept an invitation to it.",
    "you are a member of {room}",
)
_changing(
    "leave", "leave", "Stop being a member of a room.", "you are no longer a member of {room}"
)
_changing(
    "keep",
    "keep",
    "Choose how long messages are kept; without bounds, as in the server's settings. Older ones are"
    " removed permanently.",
    "in {room} {keep}",
    also=(AGE, MESSAGES, SIZE, YES),
)
_changing(
    "redact",
    "redact",
    "Erase a message: your own, or as a moderator that of somebody else. ROOM may be @NAME, for"
    " your own direct message to NAME (SEQ as in relay history @NAME --numbers).",
    "the message is erased from {room}",
    "SEQ",
    also=(REASON,),
)
_changing(
    "delete",
    "delete",
    "Delete a room permanently, with all its messages. A later room of its name is another one.",
    "{room} is deleted",
    also=(REASON, YES),
)
