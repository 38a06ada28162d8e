"""``relay send``: one text, or each line of standard input, with a reliable exit status."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any, Final

import click

from relay import limits
from relay.chat.names import is_room
from relay.cli.arguments.names import checked_log
from relay.cli.arguments.options import NumberRange, Target, places, target_options
from relay.cli.arguments.text_argument import TextCommand
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.connection.progress_timeout import ProgressTimeout
from relay.cli.process.exits import CommandError, Exit
from relay.client.aio import Client
from relay.client.errors import ClientError
from relay.client.events import Stored
from relay.client.refusals import UNCLEAR, Busy, Refused, Unavailable
from relay.terminal.lines import read_lines
from relay.terminal.notices import Narrator
from relay.terminal.output import Output
from relay.terminal.screens import PlainScreen

TIMEOUT_S_MAX: Final = 10_000_000
"""A third of a year: anything longer is equivalent to waiting."""
RETRY_S: Final = 1.0
"""After a request that the client has repeated for seconds itself."""


@click.command(cls=TextCommand, example="ADDRESS ROOM -- TEXT", undone="nothing was sent")
@places("ROOM", optional=["TEXT"])
@who_options(program=True, guests=True)
@click.option(
    "--timeout",
    "timeout_s",
    type=NumberRange(min=0, min_open=True, max=TIMEOUT_S_MAX),
    metavar="SECONDS",
    help="Give up after this long without reaching the server or having anything stored.  [default:"
    " wait]",
)
@target_options
def send(target: Target, room: str, text: str | None, who: Who, timeout_s: float | None) -> int:
    """Send TEXT to ROOM, or each line of the input as a message if there is no TEXT.

    @NAME instead of ROOM sends it to one person only; both need an account.

    Put -- before a TEXT that may begin with "-".

    The exit status is 0 only if the server has stored everything: each message once, in order.
    While the server cannot be reached, send waits, from the first connection on; --timeout limits
    this.

    Lines are sent as they are read, including empty ones; a newline at the very end adds no
    message. A line that is too long (over 32,768 bytes) or not UTF-8 ends the command with status 1
    once all lines before it are stored.
    """
    room = checked_log(room)
    body = None if text is None else text.encode("utf-8", "surrogateescape")
    if body is not None and (problem := unfit(body, len(body))):
        raise CommandError(f"TEXT {problem}")

    progress = ProgressTimeout(timeout_s)

    async def use(client: Client) -> int:
        screen = PlainScreen(Output.stdout())
        tell = asyncio.create_task(_tell(client, screen))
        try:
            if body is None:
                if sys.stdin.isatty():
                    screen.notice("each line that you type is sent; Ctrl-D ends")
                await send_lines(client, room, sys.stdin.fileno(), progress, tell)
            else:
                progress.begin()
                await client.send(room, body)
        finally:
            tell.cancel()
            await asyncio.gather(tell, return_exceptions=True)
        return Exit.OK

    return run_connected(target, who, use, one_shot=False, progress=progress)


async def send_lines(
    client: Client, room: str, fd: int, progress: ProgressTimeout, end: asyncio.Task[None]
) -> None:
    """Send every line of a file descriptor; return when all are stored.

    A refused line ends it at once, as does the end of the client: the next line may come much
    later. Memory is bounded by the client's window and by one read of input.

    Args:
        client: connected.
        room: the destination.
        fd: the input.
        progress: notified of each line.
        end: done when the client has ended.

    Raises:
        CommandError: a line cannot be sent, or was refused. All lines before it are stored; after a
            refusal, later lines that were under way may be stored, too.
        ClientError: the client has ended, and no line was under way.
    """
    under_way: deque[tuple[int, asyncio.Future[Stored]]] = deque()
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def outcome(stored: asyncio.Future[Stored]) -> None:
        progress.done()
        if not failed.done() and not stored.cancelled() and stored.exception() is not None:
            failed.set_result(None)

    async def post_lines() -> str:
        identity = b""
        async for line in read_lines(fd, limits.BODY_BYTES_MAX):
            if problem := unfit(line.data, line.length):
                return f"line {line.number} {problem}; the lines before it are stored"
            progress.begin()
            if line.number == 1:
                identity = await _identity(client, room)
            stored = await client.post(room, line.data, room_identity=identity)
            stored.add_done_callback(outcome)
            under_way.append((line.number, stored))
            if line.number == 1 and not identity and is_room(room):
                await asyncio.wait({stored})
                if stored.exception() is None:
                    identity = stored.result().epoch  # the room has begun with this line
            while under_way and under_way[0][1].done():
                await _stored(*under_way.popleft())
        return ""

    posting = asyncio.create_task(post_lines())
    any_of: set[asyncio.Future[Any]] = {posting, failed, end}
    try:
        await asyncio.wait(any_of, return_when=asyncio.FIRST_COMPLETED)
        complaint = posting.result() if posting.done() else None
    finally:
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
    while under_way:
        await _stored(*under_way.popleft())
    if complaint:
        raise CommandError(complaint)
    if complaint is None:
        await end  # raises the reason
        raise ClientError("the connection was closed")


async def _identity(client: Client, room: str) -> bytes:
    """Return which room of this name there is now: all lines are for that one. Empty: none yet.

    Waits as long as the server cannot tell, as a line would. If the room may not be read, the
    first line tells why.
    """
    while is_room(room):
        try:
            return (await client.room_info(room)).identity
        except (Busy, Unavailable) as error:
            await asyncio.sleep(max(RETRY_S, error.arg / 1000))
        except Refused:
            break
    return b""


async def _tell(client: Client, screen: PlainScreen) -> None:
    """Report interruptions of the connection: otherwise a wait has no visible reason.

    Raises:
        ClientError: the client has ended.
    """
    narrator = Narrator()
    async for event in client:
        if notice := narrator.notice_of(event):
            screen.notice(notice)


async def _stored(number: int, future: asyncio.Future[Stored]) -> None:
    try:
        await future
    except ClientError as error:
        known = isinstance(error, Refused) and not isinstance(error, UNCLEAR)
        outcome = "was not stored" if known else "may not be stored"
        raise CommandError(f"line {number} {outcome}: {error}") from None


def unfit(data: bytes, length: int) -> str:
    """Return why bytes cannot be a text message, or "". ``data`` may be truncated."""
    if length > limits.BODY_BYTES_MAX:
        most = f"a message has at most {limits.BODY_BYTES_MAX:,}"
        return f"is too long: {length:,} bytes; {most}"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text (byte {error.start + 1})"
    return ""
