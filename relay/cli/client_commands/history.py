"""``relay history``: prints or searches the history of a room, and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import click

from relay import limits
from relay.cli.arguments.names import checked_log
from relay.cli.arguments.options import NUMBERS, Target, places, target_options
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.console.json_lines import message_object
from relay.cli.console.printing import dump
from relay.cli.process.exits import Exit
from relay.client.aio import Client
from relay.client.arguments import ME
from relay.client.events import Control, Edit, HistoryPage, LogEntry, Message, SearchPage
from relay.client.lists import EMPTY_PAGES_MAX, holes, is_last_page
from relay.terminal.history import ENTRIES_PER_MESSAGE_MAX
from relay.terminal.notices import left_out, looked_back_to, not_indexed
from relay.terminal.output import Output
from relay.terminal.recent import Recent, numbered
from relay.terminal.screens import PlainScreen, stderr_notice
from relay.terminal.text import harmless_name
from relay.terminal.view import day_and_clock

LAST: Final = 20


@click.command()
@places("ROOM", optional=[])
@who_options(program=True, guests=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option(
    "-n",
    "--last",
    "count",
    type=click.IntRange(1),
    default=LAST,
    show_default=True,
    metavar="N",
    help="How many messages: the newest ones, with the edits and reactions among them.",
)
@click.option(
    "--before",
    type=click.IntRange(1, limits.U63_MAX),
    metavar="SEQ",
    help="Only messages before the one with this number.",
)
@click.option(
    "--search",
    "words",
    metavar="WORDS",
    help='Only messages that contain all of these words; "between quotation marks": as a phrase.'
    " Of an edited message the edit is printed.",
)
@NUMBERS
@target_options
def history(
    target: Target,
    room: str,
    who: Who,
    as_json: bool,
    count: int,
    before: int | None,
    words: str | None,
    numbers: bool,
) -> int:
    """Print the newest messages of ROOM, oldest first, and end.

    ROOM may be @me, for all of your direct messages, or @NAME, for those with one person. Exit code
    1 if there are none.
    """
    room = checked_log(room)
    if words is not None:
        _check_words(words)
    output = Output.stdout()

    async def use(client: Client) -> int:
        joined = await client.join(ME if room.startswith("@") else room)
        shown: list[LogEntry] = []
        missing, most = count, count * ENTRIES_PER_MESSAGE_MAX
        async for one in _entries(client, room, words, before, count, joined.head.seq):
            shown.append(one)
            missing -= isinstance(one, Message) or words is not None
            if not missing or len(shown) == most:
                break
        shown.reverse()
        if as_json:
            for entry in shown:
                await output.write(dump(message_object(entry)) + "\n")
        else:
            await _print(client, output, shown, found=words is not None, numbers=numbers)
        for sender, doubt in dict.fromkeys((one.sender, one.doubt) for one in shown if one.doubt):
            stderr_notice(f"WARNING about {harmless_name(sender)}: {doubt}")
        return Exit.OK if shown else Exit.FAILED

    return run_connected(target, who, use)


def _check_words(words: str) -> None:
    try:
        size = len(words.encode())
    except UnicodeEncodeError:
        raise click.UsageError("--search is not UTF-8 text") from None
    if not 1 <= size <= limits.SEARCH_BYTES_MAX:
        raise click.UsageError(f"--search takes 1 to {limits.SEARCH_BYTES_MAX} bytes of text")


async def _entries(
    client: Client, room: str, words: str | None, before: int | None, count: int, head: int
) -> AsyncIterator[LogEntry]:
    """Yield entries, newest first. ``head``: of the room, when it was joined."""
    end, empty = False, 0
    while not end:
        page: HistoryPage | SearchPage
        if words is None:
            most = min(max(count, LAST), limits.PAGE_ENTRIES_MAX)
            most = limits.PAGE_ENTRIES_MAX if empty else most
            page = await client.history(room, before=before, count=most)
            if not room.startswith("@") and (places := holes(page.entries)):
                stderr_notice(left_out(places))
        else:
            most = limits.SEARCH_COUNT_MAX if empty else min(count, limits.SEARCH_COUNT_MAX)
            page = await client.search(room, words, before=before, count=most)
            if page.indexed < min(head, (before or head + 1) - 1):
                stderr_notice(not_indexed(page.indexed))
                head = 0  # reported once
        found = [one for one in page.entries if isinstance(one, LogEntry)]
        shown = [one for one in found if not isinstance(one, Control)]
        for one in shown[::-1] if words is None else shown:
            yield one
        end, before = is_last_page(page, before), page.next
        empty = 0 if shown else empty + 1
        if empty == EMPTY_PAGES_MAX and not end:
            stderr_notice(f"{looked_back_to(before)}; --before {before} goes on")
            return


async def _print(
    client: Client, output: Output, shown: list[LogEntry], *, found: bool, numbers: bool
) -> None:
    """Print it as ``relay tail`` does; of search results, an edit as a message."""
    screen = PlainScreen(output, day_and_clock)
    recent = Recent(client.name)
    for entry in shown:
        if isinstance(entry, Message) or (found and isinstance(entry, Edit)):
            label = recent.label(entry)
            await screen.message(entry, numbered(entry, label) if numbers else label)
        elif told := recent.notice_of(entry):
            screen.notice(told)
        recent.note(entry)
