"""``relay chat``: chat in a room, at a terminal or through pipes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import click

from relay import limits
from relay.cli.arguments.names import checked_room
from relay.cli.arguments.options import Target, places, target_options
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.connection.one_shot import ANSWER_S
from relay.cli.process.exits import CommandError, Exit
from relay.client.aio import Client
from relay.client.refusals import MembersOnly
from relay.terminal.chat import Chat
from relay.terminal.commands import unreadable
from relay.terminal.lines import read_lines
from relay.terminal.output import Output
from relay.terminal.prompt import Interrupted, PromptScreen
from relay.terminal.screens import PlainScreen

ROOM_DEFAULT = "lobby"
LAST_DEFAULT = 50


@click.command()
@places(optional=["ROOM"])
@who_options(program=False, guests=True)
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0, limits.HISTORY_ON_JOIN_MAX),
    metavar="N",
    default=LAST_DEFAULT,
    show_default=True,
    help="Show the last N messages first.",
)
@target_options
def chat(target: Target, who: Who, room: str | None, last: int) -> int:
    """Chat in ROOM (by default "lobby"). /help lists the commands.

    At a terminal, the first use at a server creates a key for this device, and claims your name.

    If input or output is not a terminal, each line of the input is sent, messages are printed on
    standard output and notices on standard error. At the end of the input, chat waits until the
    server has stored everything, and only then exits with status 0.
    """
    room = checked_room(ROOM_DEFAULT if room is None else room)
    interactive = sys.stdin.isatty() and sys.stdout.isatty()

    async def use(client: Client) -> int:
        try:
            well = await (_at_terminal if interactive else _through_pipes)(client, room, last)
        except MembersOnly:
            raise CommandError(
                f"the room {room} is private: somebody in it has to invite you. 'relay room list'"
                " names the rooms that you may enter; 'relay chat ADDRESS ROOM' enters one"
            ) from None
        return Exit.OK if well else Exit.FAILED

    try:
        return run_connected(target, who, use, one_shot=False)
    except Interrupted:
        return Exit.INTERRUPTED


async def _at_terminal(client: Client, room: str, last: int) -> bool:
    """Return True if everything sent is stored. A mistyped command does not count as a failure."""
    screen = PromptScreen(room)
    chat = Chat(client, room, screen)
    chat.reads = True
    with screen.shown():
        await chat.run(_typed_lines(chat, screen), last, ANSWER_S)
    return not chat.sending.failures


async def _typed_lines(chat: Chat, screen: PromptScreen) -> AsyncIterator[str]:
    """Yield the typed lines that can be sent; report the others.

    Bytes that the terminal's encoding does not have are surrogates here. Together they may be a
    character all the same: in a C locale the encoding is ASCII, and terminals send UTF-8.
    """
    async for line in screen.typed():
        try:
            data = line.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half of a surrogate pair
            data = line.encode("utf-8", "surrogatepass")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            reason = f"not sent, because it is not UTF-8 text (Up brings it back): {line}"
            chat.mistaken(unreadable(data, chat.room, reason))
        else:
            yield text


async def _through_pipes(client: Client, room: str, last: int) -> bool:
    """Return True if every line was a command or is stored."""
    chat = Chat(client, room, PlainScreen(Output.stdout()))
    await chat.run(_input_lines(chat), last, ANSWER_S)
    return not chat.sending.failures and not chat.mistakes


async def _input_lines(chat: Chat) -> AsyncIterator[str]:
    """Yield the lines of standard input that can be sent; report the others."""
    async for line in read_lines(sys.stdin.fileno(), limits.BODY_BYTES_MAX):
        if not line.is_whole:
            wrong = f"it is too long ({line.length:,} bytes)"
        else:
            try:
                text = line.data.decode()
            except UnicodeDecodeError:
                wrong = "it is not UTF-8 text"
            else:
                yield text
                continue
        reason = f"line {line.number} was not sent: {wrong}"
        chat.mistaken(unreadable(line.data, chat.room, reason))
