"""``relay export``: all data of the user, as JSON lines."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.arguments.names import checked_log
from relay.cli.arguments.options import Target, places, target_options
from relay.cli.connection.connecting import run_connected
from relay.cli.connection.login_options import Who, who_options
from relay.cli.console.json_lines import message_object
from relay.cli.console.printing import dump
from relay.cli.process.exits import Exit
from relay.client.account_calls import Devices, Preferences, User
from relay.client.aio import Client
from relay.client.devices.device_key import public_text
from relay.client.events import LogEntry
from relay.client.own_data import OwnData, ReadUpTo
from relay.client.room_calls import ListedRoom
from relay.errors import UsageError
from relay.terminal.output import Output
from relay.terminal.screens import stderr_notice

MORE_ROOMS = click.option(
    "--room",
    "rooms",
    multiple=True,
    metavar="ROOM",
    help="Another room: one that is not listed and in which you have no role. May be repeated.",
)


@click.command()
@places(optional=[])
@who_options(program=False)
@MORE_ROOMS
@target_options
def export(target: Target, who: Who, rooms: tuple[str, ...]) -> int:
    """Write all data that the server has about you to stdout, one JSON object per line.

    This includes your account, its devices and settings, your read marks, the rooms in which you
    have a role, your direct messages in both directions, and your messages in rooms that you may
    read. The last line counts what was written: a file without it is incomplete.
    """
    more = checked_rooms(rooms)
    output = Output.stdout()

    async def use(client: Client) -> int:
        direct = written = 0
        async for found in client.export(more):
            if isinstance(found, LogEntry):
                direct += bool(found.to)
                written += not found.to
            await output.write(dump(own_object(found)) + "\n")
        end = {"direct_messages": direct, "in_rooms": written}
        await output.write(dump({"end": end}) + "\n")
        stderr_notice(f"exported {direct} direct messages, and {written} of your messages in rooms")
        return Exit.OK

    return run_connected(target, who, use)


def checked_rooms(rooms: tuple[str, ...]) -> list[str]:
    """Return the canonical names of rooms. Raises UsageError."""
    names = [checked_log(room) for room in rooms]
    for name in names:
        if name.startswith("@"):
            raise UsageError(f"invalid room name {name!r}")
    return names


def own_object(found: OwnData) -> dict[str, Any]:
    """Return the fields of one line."""
    match found:
        case LogEntry():
            return message_object(found)
        case User():
            fields = found._asdict()
            del fields["devices"], fields["waiting"], fields["expires_ms"]
            return {"account": fields}
        case Devices():
            devices = [one._asdict() for one in found.devices]
            return {"devices": devices, "chain": public_text(found.account)}
        case Preferences():
            return {"settings": found._asdict()}
        case ReadUpTo(room=room, cursor=cursor):
            return {"read": {"room": room, "epoch": cursor.epoch.hex(), "seq": cursor.seq}}
        case ListedRoom():
            return {"membership": found._asdict()}
