"""``relay tail``: follow a room and print what is said, for people and for programs."""

from __future__ import annotations

import asyncio

import click

from relay import limits
from relay.cli.connecting import run_connected
from relay.cli.exits import Exit
from relay.cli.json_lines import dump, gap_object, message_object
from relay.cli.names import checked_name, checked_room, program_name
from relay.cli.options import Target, address_argument, target_options
from relay.client.aio import Client
from relay.client.events import Gap, Message
from relay.terminal.notices import Narrator
from relay.terminal.output import Output
from relay.terminal.screens import PlainScreen
from relay.terminal.view import day_and_clock


@click.command()
@address_argument
@click.argument("room", metavar="ROOM")
@click.option("--name", metavar="NAME", help="Who reads. [default: your login name and a suffix]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--since",
    type=click.IntRange(0, limits.U63_MAX),
    metavar="SEQ",
    help="Begin after the message with this number; 0: with the first one.",
)
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0, limits.HISTORY_ON_JOIN_MAX),
    metavar="N",
    help="Begin with the last N messages. [default: only new ones]",
)
@target_options
def tail(
    target: Target, room: str, name: str | None, as_json: bool, since: int | None, last: int | None
) -> int:
    """Print what is said in ROOM, until stopped.

    After an interruption it goes on where it was: nothing is missed or printed twice. What the
    server no longer holds is reported as a gap.
    """
    if since is not None and last is not None:
        raise click.UsageError("--since and -n (--last) exclude each other")
    room = checked_room(room)
    name = checked_name(name) or program_name()
    output = Output.stdout()
    show = _show_json if as_json else _show_text

    async def use(client: Client) -> int:
        if since is None:
            await client.join(room, last=last or 0)
        else:
            await client.join(room, since=since)
        await _until_reader_leaves(output, asyncio.create_task(show(client, output)))
        return Exit.OK

    return run_connected(target, name, use, on_term=Exit.OK)


async def _show_json(client: Client, output: Output) -> None:
    screen, narrator = PlainScreen(output), Narrator()
    async for event in client:
        if isinstance(event, Message):
            await output.write(dump(message_object(event)) + "\n")
        elif isinstance(event, Gap):
            await output.write(dump(gap_object(event)) + "\n")
        elif notice := narrator.notice_of(event):
            screen.notice(notice)


async def _show_text(client: Client, output: Output) -> None:
    screen, narrator = PlainScreen(output, day_and_clock), Narrator()
    async for event in client:
        if isinstance(event, Message):
            await screen.message(event)
        elif notice := narrator.notice_of(event):
            screen.notice(notice)


async def _until_reader_leaves(output: Output, show: asyncio.Task[None]) -> None:
    """Wait for a task to fail, or for the reader of our output to go away while nothing is said.

    Raises:
        BrokenPipeError: it went away.
    """
    reader = asyncio.create_task(output.closed_by_reader())
    try:
        await asyncio.wait({show, reader}, return_when=asyncio.FIRST_COMPLETED)
        if show.done():
            show.result()
        else:
            raise BrokenPipeError
    finally:
        show.cancel()
        reader.cancel()
        await asyncio.gather(show, reader, return_exceptions=True)
