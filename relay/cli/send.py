"""``relay send``: one text, or each line of standard input, and a status that can be relied on."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

import click

from relay import limits
from relay.cli.connecting import TERMINATED, run_connected
from relay.cli.exits import CommandError, Exit
from relay.cli.names import checked_name, checked_room, program_name
from relay.cli.options import Target, address_argument, target_options
from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import Stored
from relay.terminal.lines import read_lines
from relay.terminal.notices import Narrator
from relay.terminal.output import Output
from relay.terminal.screens import PlainScreen


@click.command()
@address_argument
@click.argument("room", metavar="ROOM")
@click.argument("text", metavar="[TEXT]", required=False)
@click.option("--name", metavar="NAME", help="Who sends. [default: your login name and a suffix]")
@target_options
def send(target: Target, room: str, text: str | None, name: str | None) -> int:
    """Send TEXT to ROOM; without TEXT, each line of the input as a message of its own.

    Ends with status 0 only when the server has stored everything. Interruptions of the connection
    are bridged; each message is stored once, in order.

    Lines are sent while they are read, empty ones too; a newline at the very end adds no message. A
    line that is too long (32,768 bytes) or not UTF-8 ends the command with status 1 once all lines
    before it are stored.
    """
    room = checked_room(room)
    name = checked_name(name) or program_name()
    body = None if text is None else text.encode("utf-8", "surrogateescape")
    if body is not None and (problem := unfit(body, len(body))):
        raise CommandError(f"TEXT {problem}")

    async def use(client: Client) -> int:
        screen = PlainScreen(Output.stdout())
        tell = asyncio.create_task(_tell(client, screen))
        try:
            if body is None:
                if sys.stdin.isatty():
                    screen.notice("each line that you type is sent; Ctrl-D ends")
                await send_lines(client, room, sys.stdin.fileno())
            else:
                await client.send(room, body)
        finally:
            tell.cancel()
            await asyncio.gather(tell, return_exceptions=True)
        return Exit.OK

    return run_connected(target, name, use, TERMINATED)


async def send_lines(client: Client, room: str, fd: int) -> None:
    """Send every line of a file descriptor; return when all are stored.

    Memory is bounded by the client's window and by one read of input.

    Raises:
        CommandError: a line cannot be sent, or was refused. All lines before it are stored; after
            a refusal, lines behind it that were under way may be stored, too.
    """
    under_way: deque[tuple[int, asyncio.Future[Stored]]] = deque()
    complaint = ""
    async for line in read_lines(fd, limits.BODY_BYTES_MAX):
        if problem := unfit(line.data, line.length):
            complaint = f"line {line.number} {problem}; the lines before it are stored"
            break
        under_way.append((line.number, await client.post(room, line.data)))
        while under_way and under_way[0][1].done():
            await _stored(*under_way.popleft())
    while under_way:
        await _stored(*under_way.popleft())
    if complaint:
        raise CommandError(complaint)


async def _tell(client: Client, screen: PlainScreen) -> None:
    """Say when the connection is interrupted: otherwise a wait has no visible reason."""
    narrator = Narrator()
    async for event in client:
        if notice := narrator.notice_of(event):
            screen.notice(notice)


async def _stored(number: int, future: asyncio.Future[Stored]) -> None:
    try:
        await future
    except ClientError as error:
        raise CommandError(f"line {number} was not stored: {error}") from None


def unfit(data: bytes, length: int) -> str:
    """Return why bytes cannot be a text message, or an empty string. ``data`` may be cut short."""
    if length > limits.BODY_BYTES_MAX:
        most = f"a message has at most {limits.BODY_BYTES_MAX:,}"
        return f"is too long: {length:,} bytes; {most}"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text (byte {error.start + 1})"
    return ""
