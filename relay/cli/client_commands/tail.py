"""``relay tail``: follows a room and prints its messages, for people and programs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import click

from relay import limits
from relay.chat.entries import NO_EPOCH, Cursor
from relay.cli.arguments.names import checked_log
from relay.cli.arguments.options import NUMBERS, Target, places, target_options
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.connection.one_shot import ANSWER_S
from relay.cli.console.json_lines import change_object, gap_object, message_object
from relay.cli.console.printing import dump
from relay.cli.process.exits import CommandError, Exit
from relay.client.aio import Client
from relay.client.arguments import ME
from relay.client.events import Control, Event, Gap, LogEntry, Message, RoomChanged, Unfollowed
from relay.terminal.entering import Entering
from relay.terminal.notices import Narrator
from relay.terminal.output import Output
from relay.terminal.recent import Recent, numbered
from relay.terminal.screens import PlainScreen, stderr_notice
from relay.terminal.view import day_and_clock

_PLACE: Final = re.compile(r"((?P<epoch>[0-9a-fA-F]{16}):)?(?P<seq>[0-9]{1,19})", re.ASCII)


def typed_place(ctx: click.Context, param: click.Parameter, value: str | None) -> Cursor | None:
    """Return the cursor for a typed position. SEQ alone has no epoch: the server uses its current
    one.

    Raises:
        click.BadParameter: it is neither SEQ nor EPOCH:SEQ.
    """
    if value is None:
        return None
    found = _PLACE.fullmatch(value)
    if found is None or int(found["seq"]) > limits.U63_MAX:
        raise click.BadParameter(
            f"{value!r} is neither a message number nor EPOCH:SEQ (16 hexadecimal digits, a colon"
            " and a number)",
            ctx,
            param,
        )
    epoch = NO_EPOCH if found["epoch"] is None else bytes.fromhex(found["epoch"])
    return Cursor(epoch, int(found["seq"]))


@click.command()
@places("ROOM", optional=[])
@who_options(program=True, guests=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "--since",
    callback=typed_place,
    metavar="[EPOCH:]SEQ",
    help="Begin after this message (epoch and seq as in --json); 0: with the first one. Without"
    " EPOCH, a restore from a backup is not noticed.",
)
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0, limits.HISTORY_ON_JOIN_MAX),
    metavar="N",
    help="Begin with the last N messages.  [default: only new ones]",
)
@click.option(
    "--changes",
    is_flag=True,
    help="Also print changes of the room and who made them: on standard error, or with"
    " --json as an object.",
)
@NUMBERS
@target_options
def tail(
    target: Target,
    room: str,
    who: Who,
    as_json: bool,
    changes: bool,
    since: Cursor | None,
    last: int | None,
    numbers: bool,
) -> int:
    """Print the messages of ROOM until stopped; of @me, the direct messages to and from you.

    After an interruption it continues where it was: nothing is missed or printed twice. What the
    server no longer has is reported as a gap.
    """
    if since is not None and last is not None:
        raise click.UsageError("--since and -n (--last) cannot be used together")
    room = checked_log(room)
    if room.startswith("@") and room not in (ME, f"@{who.name}"):
        raise click.UsageError("only one's own inbox can be read: @me")
    output = Output.stdout()
    show = _show_json if as_json else partial(_show_text, numbers=numbers)

    async def use(client: Client) -> int:
        entering = Entering(stderr_notice)
        showing = asyncio.create_task(show(client.name, entering.events(client), output, changes))
        if since is None:
            join = client.join(room, last=last or 0, timeout=ANSWER_S)
        else:
            join = client.join(room, cursor=since, timeout=ANSWER_S)
        try:
            await _until_reader_leaves(output, asyncio.create_task(entering.join(join)))
            await _until_reader_leaves(output, showing)
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        return Exit.OK

    return run_connected(target, who, use, one_shot=False, on_term=Exit.OK)


async def _show_json(_: str, events: AsyncIterator[Event], output: Output, changes: bool) -> None:
    screen, narrator = PlainScreen(output), Narrator()
    async for event in events:
        if isinstance(event, Control):
            continue  # an event of the account: not a message
        if isinstance(event, LogEntry):
            await output.write(dump(message_object(event)) + "\n")
        elif isinstance(event, RoomChanged):
            if changes:
                await output.write(dump(change_object(event)) + "\n")
        elif isinstance(event, Gap):
            await output.write(dump(gap_object(event)) + "\n")
        elif notice := narrator.notice_of(event):
            _tell(screen, event, notice)


async def _show_text(
    me: str, events: AsyncIterator[Event], output: Output, changes: bool, *, numbers: bool
) -> None:
    screen, narrator = PlainScreen(output, day_and_clock), Narrator()
    recent = Recent(me)
    async for event in events:
        if isinstance(event, Message):
            label = recent.label(event)
            await screen.message(event, numbered(event, label) if numbers else label)
            recent.note(event)
        elif isinstance(event, LogEntry):
            if told := recent.notice_of(event):
                screen.notice(told)
            recent.note(event)
        elif isinstance(event, RoomChanged) and not changes:
            pass
        elif notice := narrator.notice_of(event):
            _tell(screen, event, notice)


def _tell(screen: PlainScreen, event: Event, notice: str) -> None:
    """Print a notice.

    Raises:
        CommandError: the room is no longer followed: nothing more will arrive.
    """
    if isinstance(event, Unfollowed):
        raise CommandError(notice)
    screen.notice(notice)


async def _until_reader_leaves(output: Output, task: asyncio.Task[Any]) -> None:
    """Wait for a task to end, or for the reader of an idle output to go away.

    Raises:
        BrokenPipeError: the reader has gone.
    """
    reader = asyncio.create_task(output.closed_by_reader())
    try:
        await asyncio.wait({task, reader}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        else:
            raise BrokenPipeError
    finally:
        task.cancel()
        reader.cancel()
        await asyncio.gather(task, reader, return_exceptions=True)
