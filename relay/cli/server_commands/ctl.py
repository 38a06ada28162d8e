"""``relay ctl``: inspect and control a running relay on this machine."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import (
    NumberRange,
    config_option,
    data_option,
    document_option,
    typed_directory,
    typed_path,
)
from relay.cli.console import tables
from relay.cli.console.printing import print_json, print_line
from relay.cli.process.exits import Exit, report
from relay.cli.process.interrupts import EndsRaised
from relay.cli.server_commands import ctl_accounts
from relay.cli.server_commands.ctl_client import Server, Which
from relay.cli.server_commands.ctl_upgrade import upgrade

TOP_INTERVAL_S: Final = 2.0
_limit = click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)


class _CtlGroup(CommandGroup):
    """Its options may also follow the name of a command, as in other groups."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """As ``click.Group``."""
        for own in self.params:
            assert isinstance(own, click.Option)
            cmd.params.append(
                click.Option(
                    [*own.opts, str(own.name)],
                    hidden=True,
                    expose_value=False,
                    callback=_also_there,
                )
            )
        super().add_command(cmd, name)


def _also_there(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None and not ctx.resilient_parsing:
        found = value if param.name == "data" else typed_path(ctx, param, value)
        setattr(ctx.obj, str(param.name), found)


_CONNECTION_ID: Final = re.compile("[0-9]+-[0-9]+")


@click.group(cls=_CtlGroup)
@data_option
@config_option
@click.option("--socket", "sock", callback=typed_path, metavar="PATH", help="Its control socket.")
@click.pass_context
def ctl(ctx: click.Context, data: str | None, config: Path | None, sock: Path | None) -> None:
    """Inspect and control a relay that runs on this machine.

    It is found by its data directory or its settings, as "relay serve" finds them. Only root and
    the relay's own user may ask.
    """
    ctx.obj = Which(data, config, sock)


_Found = Callable[[], Server]


@ctl.command()
@document_option
@click.pass_obj
def status(found: _Found, as_json: bool) -> int:
    """Show whether all is well, and what each worker does. Exit code 1 if it is not ready."""
    answer = found().ask("status")
    _show(answer, as_json, tables.status_lines)
    return Exit.OK if answer["ready"] else Exit.FAILED


@ctl.command()
@document_option
@click.option(
    "--interval",
    "interval_s",
    type=NumberRange(0.2, 3600),
    default=TOP_INTERVAL_S,
    show_default=True,
    metavar="SECONDS",
    help="Between two updates.",
)
@click.pass_obj
def top(found: _Found, as_json: bool, interval_s: float) -> int:
    """Show the workers, the busiest rooms and the slowest readers, live.

    On a terminal until q is pressed; otherwise once, for one interval.
    """
    server = found()
    if not as_json and _on_a_screen():
        from relay.cli.server_commands.ctl_top import show

        return show(lambda: server.ask("top"), interval_s)
    server.ask("top")  # rates are computed from this point on
    time.sleep(interval_s)
    answer = server.ask("top")
    _show(answer, as_json, tables.top_lines)
    return _complete(answer)


@ctl.command()
@document_option
@_limit
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--room", metavar="ROOM", help="Only those that follow this room.")
@click.pass_obj
def connections(
    found: _Found, as_json: bool, limit: int, name: str | None, room: str | None
) -> int:
    """List connections, those with the most unread data first."""
    answer = found().ask("connections", limit=limit, name=name, room=room)
    return _list(answer, as_json, tables.connection_lines)


@ctl.command()
@document_option
@_limit
@click.pass_obj
def rooms(found: _Found, as_json: bool, limit: int) -> int:
    """List rooms that are followed now, those with the most connections first."""
    answer = found().ask("rooms", limit=limit)
    return _list(answer, as_json, tables.room_lines)


@ctl.command()
@document_option
@_limit
@click.pass_obj
def closed(found: _Found, as_json: bool, limit: int) -> int:
    """List recently closed connections, with the reasons, the latest first."""
    answer = found().ask("closed", limit=limit)
    return _list(answer, as_json, tables.closed_lines)


@ctl.command()
@document_option
@_limit
@click.option("--after", metavar="NAME", help="Only those after this name.")
@click.pass_obj
def users(found: _Found, as_json: bool, limit: int, after: str | None) -> int:
    """List accounts by name: state, devices, and number of sessions."""
    answer = found().ask("users", limit=limit, after=after)
    last = answer["items"][-1]["name"] if answer["items"] else ""
    return _list(answer, as_json, tables.user_lines, f"there are more: --after {last}")


@ctl.command()
@document_option
@_limit
@click.pass_obj
def invitations(found: _Found, as_json: bool, limit: int) -> int:
    """List the invitations that can still be used, the next to expire first.

    "relay invite --revoke ID" revokes one.
    """
    answer = found().ask("invitations", limit=limit)
    return _list(answer, as_json, tables.invitation_lines)


ctl.add_command(ctl_accounts.user)
ctl.add_command(ctl_accounts.room)


@ctl.command()
@document_option
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--name", metavar="NAME", help="All connections of this name, instead of an ID.")
@click.pass_obj
def kick(found: _Found, as_json: bool, id_: str | None, name: str | None) -> int:
    """Close the connection with an ID (from "relay ctl connections"); its client does not
    reconnect.

    The user can still connect again.
    """
    if bool(id_) == bool(name):
        raise click.UsageError("give either the ID of a connection or --name")
    if id_ and not _CONNECTION_ID.fullmatch(id_):
        raise click.UsageError(
            f"{id_!r} is not the ID of a connection, like 3-17; for a name, give --name"
        )
    answer = found().ask("kick", id=id_, name=name)
    _show(answer, as_json, lambda shown: [f"kicked {shown['kicked']}"])
    if not answer["kicked"]:
        report("no such connection")
        return Exit.FAILED
    return _complete(answer)


@ctl.command()
@document_option
@click.pass_obj
def drain(found: _Found, as_json: bool) -> int:
    """Stop the relay as TERM does: clients are told, and have time to leave."""
    answer = found().ask("drain")
    _show(answer, as_json, lambda shown: [f"relay {shown['pid']} is stopping"])
    return Exit.OK


@ctl.command()
@document_option
@click.pass_obj
def reload(found: _Found, as_json: bool) -> int:
    """Reload the settings, as HUP does: they are applied as a whole, or refused."""
    answer = found().ask("reload")
    _show(answer, as_json, lambda shown: _changed(shown["changed"]))
    return Exit.OK


@ctl.command()
@document_option
@click.argument("directory", metavar="BACKUP", callback=typed_directory)
@click.pass_obj
def backup(found: _Found, as_json: bool, directory: Path) -> int:
    """Create a backup, as "relay backup create" does: BACKUP is a new directory."""
    from relay.cli.server_commands.backup import make

    server = found()
    data = Path(server.ask("status")["data"])
    with EndsRaised():
        return make(data, directory, lambda: server, as_json=as_json)


@ctl.command()
@document_option
@click.pass_obj
def reindex(found: _Found, as_json: bool) -> int:
    """Rebuild the search index from the messages. Until that is done, older ones are not found."""
    answer = found().ask("reindex")
    _show(answer, as_json, lambda shown: [f"partitions to index: {shown['partitions']}"])
    return _complete(answer)


@ctl.command()
@document_option
@click.pass_obj
def restart(found: _Found, as_json: bool) -> int:
    """Replace the workers by new ones, one after the other, while the relay keeps running.

    Each worker gives its partitions to others and sends its clients away; they resume at once.
    """
    answer = found().ask("restart")
    _show(answer, as_json, lambda shown: [f"replacing {shown['workers']} workers"])
    return Exit.OK


@ctl.command()
@document_option
@click.argument("count", metavar="N", type=click.IntRange(1))
@click.pass_obj
def workers(found: _Found, as_json: bool, count: int) -> int:
    """Run with N workers from now on, until the next start."""
    answer = found().ask("workers", count=count)
    _show(answer, as_json, lambda shown: [f"workers: {shown['workers']}, were {shown['before']}"])
    return Exit.OK


@ctl.command("upgrade")
@document_option
@click.pass_obj
def upgrade_command(found: _Found, as_json: bool) -> int:
    """Let the version that is on the disk take over, as USR2 does, and wait for it.

    If it cannot, the relay continues as before, and the exit code is 1.
    """
    answer = upgrade(found())
    line = "relay {version} ({pid}) has taken over from {version_before} ({pid_before})"
    _show(answer, as_json, lambda shown: [line.format_map(shown)])
    return Exit.OK


@ctl.command("log-level")
@document_option
@click.argument("level", metavar="LEVEL", type=click.Choice(["debug", "info", "warning", "error"]))
@click.pass_obj
def log_level(found: _Found, as_json: bool, level: str) -> int:
    """Log from LEVEL on, in all processes, until the next reload or start."""
    answer = found().ask("log-level", level=level)
    _show(answer, as_json, lambda shown: [f"log level: {shown['level']}, was {shown['before']}"])
    return Exit.OK


def _on_a_screen() -> bool:
    screen = sys.stdin.isatty() and sys.stdout.isatty()
    return screen and os.environ.get("TERM", "dumb") not in ("", "dumb")


def _changed(changed: dict[str, str]) -> list[str]:
    return [f"{path}: {how}" for path, how in changed.items()] or ["nothing has changed"]


def _list(
    answer: dict[str, Any],
    as_json: bool,
    lines: Callable[[list[dict[str, Any]]], list[str]],
    rest: str = "",
) -> int:
    """Print a list, and how to see what is left out; return the exit code."""

    def shown(answer: dict[str, Any]) -> list[str]:
        left = rest or f"{answer['more']} more; --limit shows up to 1000"
        return [*lines(answer["items"]), *([left] if answer["more"] else [])]

    _show(answer, as_json, shown)
    return _complete(answer)


def _show(
    answer: dict[str, Any], as_json: bool, lines: Callable[[dict[str, Any]], list[str]]
) -> None:
    if as_json:
        print_json(answer)
    else:
        for line in lines(answer):
            print_line(line)


def _complete(answer: dict[str, Any]) -> int:
    """Report workers that did not answer; return the exit code."""
    for missing in answer["missing"]:
        report(str(missing))
    return Exit.FAILED if answer["missing"] else Exit.OK
