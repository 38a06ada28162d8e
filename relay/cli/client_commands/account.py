"""``relay account``: a user's own settings, and the deletion of the account."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import click

from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import LINES, Target, places, target_options
from relay.cli.arguments.room_options import AGE, MESSAGES, SIZE
from relay.cli.client_commands.export import MORE_ROOMS, checked_rooms
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, put_aside, who_options
from relay.cli.console.confirming import YES, confirm, need_answer
from relay.cli.console.printing import print_json, print_line
from relay.cli.process.exits import CommandError, Exit
from relay.client.account_calls import Preferences, Writers
from relay.client.aio import Client
from relay.client.refusals import NotAllowed
from relay.terminal.notices import choices
from relay.terminal.room_notices import keep_words
from relay.terminal.screens import stderr_notice
from relay.terminal.text import harmless_name
from relay.terminal.view import day_and_minute, rfc3339

_who = who_options(program=False)
_CHOICES: Final = click.Choice(["all", "rooms", "known", "nobody"])


@click.group(cls=CommandGroup)
def account() -> None:
    """Your account: show, set, keep, block, unblock, seen, delete."""


@account.command()
@places(optional=[])
@_who
@LINES
@target_options
def show(target: Target, who: Who, as_json: bool) -> int:
    """Show your settings, and whom you block."""

    async def use(client: Client) -> int:
        _print(client.name, await client.preferences(), as_json)
        return Exit.OK

    return run_connected(target, who, use)


def _print(name: str, found: Preferences, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, **found._asdict()})
        return
    print_line(f"{name}: {choices(found)}")
    if any(found.keep):
        age_s, messages, size = found.keep
        bounds = [f"{age_s} s"] * bool(age_s) + [f"{messages} messages"] * bool(messages)
        bounds += [f"{size} bytes"] * bool(size)
        print_line(f"  the inbox keeps at most {', '.join(bounds)}")
    for blocked in found.blocked:
        print_line(f"  blocks {harmless_name(blocked)}")


@account.command("set")
@places(optional=[])
@_who
@click.option("--writers", type=_CHOICES, help="Who may write to you.")
@click.option("--seen-by", type=_CHOICES, help="Who may see when you were last connected.")
@LINES
@target_options
def set_(
    target: Target, who: Who, writers: Writers | None, seen_by: Writers | None, as_json: bool
) -> int:
    """Choose who may write to you, and who may see when you were last connected.

    "known" means those to whom you have written; "rooms" adds the members of rooms in which you are
    a permanent member.
    """
    if writers is None and seen_by is None:
        raise click.UsageError("give --writers or --seen-by")

    async def use(client: Client) -> int:
        await client.set_preferences(writers=writers, seen_by=seen_by)
        _print(client.name, await client.preferences(), as_json)
        return Exit.OK

    return run_connected(target, who, use)


@account.command()
@places(optional=[])
@_who
@AGE
@MESSAGES
@SIZE
@YES
@LINES
@target_options
def keep(
    target: Target, who: Who, age: int, messages: int, size: int, yes: bool, as_json: bool
) -> int:
    """Choose how long your inbox keeps direct messages; without options: as the server does.

    The other person's inbox keeps its own copies. The server's settings may keep less. Direct
    messages beyond these limits are removed permanently.
    """
    if age or messages or size:
        words = keep_words((age, messages, size))
        confirm(f"In your inbox {words}; the rest is removed", "inbox", yes=yes)

    async def use(client: Client) -> int:
        await client.set_preferences(keep=(age, messages, size))
        _print(client.name, await client.preferences(), as_json)
        return Exit.OK

    return run_connected(target, who, use)


def _taken_or_not(name: str, help_: str, done: str, *, blocked: bool) -> None:
    """Create the command that blocks somebody, or the one that unblocks."""

    @account.command(name, help=help_)
    @places("USER", optional=[])
    @_who
    @target_options
    def command(target: Target, who: Who, user: str) -> int:
        async def use(client: Client) -> int:
            await (client.block(user) if blocked else client.unblock(user))
            stderr_notice(f"direct messages of {user} are {done}")
            return Exit.OK

        return run_connected(target, who, use)


_taken_or_not(
    "block",
    "Block direct messages from USER. They are not told.",
    "blocked",
    blocked=True,
)
_taken_or_not("unblock", "Accept direct messages from USER again.", "accepted again", blocked=False)


@account.command()
@places("USER", optional=[])
@_who
@LINES
@target_options
def seen(target: Target, who: Who, user: str, as_json: bool) -> int:
    """Show when USER was last connected; exit code 1 if you may not see it."""

    async def use(client: Client) -> int:
        found = await client.last_seen(user)
        if as_json and (found.online or found.time_ms):
            fields: dict[str, Any] = {"name": user, "online": found.online}
            if found.time_ms:
                fields["time"] = rfc3339(found.time_ms)
            print_json(fields)
        elif found.online:
            print_line(f"{user} is here")
        elif found.time_ms:
            print_line(f"{user} was last here {day_and_minute(found.time_ms)}")
        else:
            raise CommandError(f"you are not told when {user} was last here")
        return Exit.OK

    return run_connected(target, who, use)


@account.command()
@places(optional=[])
@_who
@click.option(
    "--messages",
    type=click.Choice(["keep", "erase"]),
    default="keep",
    show_default=True,
    help="What happens to your messages in rooms and to other people.",
)
@MORE_ROOMS
@YES
@target_options
def delete(target: Target, who: Who, messages: str, rooms: tuple[str, ...], yes: bool) -> int:
    """Delete your account permanently. Its name is never assigned again, not even to you.

    All your devices are logged out, your inbox and settings are erased within minutes, and your
    roles in rooms end. The key of this device is renamed, so that no command uses it. Run "relay
    export" first to keep a copy. With --messages erase, your messages are erased first: in the
    rooms that "relay export" reads, and in the inboxes of those to whom you wrote. Copies that
    others have made stay.
    """
    more = checked_rooms(rooms)
    need_answer(yes=yes)

    async def ask(client: Client) -> int:
        alone = []
        for room in await client.rooms(mine=True):
            if room.role == "owner":
                people = (await client.room_info(room.name)).people
                if sum(one.role == "owner" for one in people) == 1:
                    alone.append(room.name)
        if alone:
            stderr_notice(
                f"you are the only owner of {', '.join(alone)}: these rooms will have no owner"
            )
        with contextlib.suppress(NotAllowed):  # only an operator may ask
            if (await client.user(client.name)).operator and not await _has_another(client):
                # The server would refuse it at the end, after messages may have been erased.
                raise CommandError(
                    "you are the only operator: make another one first"
                    " (relay user promote ADDRESS USER)"
                )
        handles.append(client.name)
        return Exit.OK

    handles: list[str] = []
    code = run_connected(target, who, ask)
    if code != Exit.OK:
        return code
    name = handles[0]
    confirm(f"The account {name} will be deleted", name, yes=yes)

    async def use(client: Client) -> int:
        done = await client.delete_account(erase_messages=messages == "erase", rooms=more)
        if messages == "erase":
            left = f"; {done.refused} could not be erased" if done.refused else ""
            stderr_notice(f"{done.erased} messages were erased{left}")
        stderr_notice(f"the account {name} is deleted")
        put_aside(who, client)
        return Exit.OK

    return run_connected(target, who, use)


async def _has_another(client: Client) -> bool:
    """Return True if there is another operator who can log in."""
    for name in await client.users():
        if name != client.name:
            found = await client.user(name)
            if found.operator and found.state == "active":
                return True
    return False
