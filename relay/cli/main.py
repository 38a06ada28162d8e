"""The console command ``relay``: its group of commands, and the exit codes."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from relay import __version__, compiled
from relay.cli import exits
from relay.cli.groups import CommandGroup
from relay.cli.streams import prepare_streams
from relay.loading import no_collections


class Entry(NamedTuple):
    """Where a command is defined, so that ``relay --help`` need not import it."""

    module: str
    attribute: str
    summary: str


COMMANDS: Final = {
    "chat": Entry("relay.cli.chat", "chat", "Chat in a room."),
    "send": Entry("relay.cli.send", "send", "Send a text or each line of the input to a room."),
    "tail": Entry("relay.cli.tail", "tail", "Follow a room and print its messages."),
    "history": Entry("relay.cli.history", "history", "Print or search the history of a room."),
    "register": Entry("relay.cli.register", "register", "Claim a name, with a key of this device."),
    "device": Entry("relay.cli.device", "device", "Add, list and remove devices of your account."),
    "account": Entry(
        "relay.cli.account", "account", "Choose who may write to you; delete your account."
    ),
    "export": Entry("relay.cli.export", "export", "Export all your data, as JSON lines."),
    "invite": Entry("relay.cli.invite", "invite", "Make an invitation (operators)."),
    "user": Entry("relay.cli.user", "user", "Manage accounts (operators)."),
    "room": Entry("relay.cli.room", "room", "List rooms, and manage rights in them."),
    "alias": Entry("relay.cli.alias", "alias", "Give addresses short names."),
    "serve": Entry("relay.cli.serve", "serve", "Run a relay server (Linux)."),
    "key": Entry("relay.cli.key", "key", "Show and change a server's key (Linux)."),
    "ctl": Entry("relay.cli.ctl", "ctl", "Inspect and control a running server (Linux)."),
    "backup": Entry("relay.cli.backup", "backup", "Create, verify and restore backups (Linux)."),
    "data": Entry("relay.cli.data", "data", "Check, repair, export and import messages (Linux)."),
    "config": Entry("relay.cli.config", "config", "Write, check and show a server's settings."),
}


class LazyGroup(CommandGroup):
    """A group that imports a command when it is used: fast, and works if one cannot be imported."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:  # noqa: ANN401  # click's
        """Parse, which may print a help."""
        with exits.broken_pipes_passed():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401
        """Run the given command, if any."""
        with exits.broken_pipes_passed():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        try:
            with no_collections():
                command = getattr(import_module(entry.module), entry.attribute)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"'relay {cmd_name}' cannot run here: the module {error.name!r} is missing"
                + ("" if sys.platform == "linux" else " (the server needs Linux)")
            ) from None
        # No collection looks at what stays, neither while it runs nor the several of its end, which
        # took a quarter of the time of a short command.
        gc.freeze()
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="ADDRESS is relay://[FINGERPRINT@]HOST[:PORT], or an alias of one; without it,"
    " RELAY_ADDRESS is used. Exit status: 0 success, 1 failure, 2"
    " wrong usage or unknown server key, 3 changed server key.",
)
@click.version_option(
    f"{__version__} ({compiled.build()})", prog_name="relay", message="%(prog)s %(version)s"
)
def relay() -> None:
    """A self-hosted, encrypted chat relay."""


def keep_access_to_own_files() -> None:
    """Take the user's own rights out of the umask that a parent left: files could not be read."""
    mask = os.umask(0o077)
    os.umask(mask & 0o077)


def main(argv: list[str] | None = None) -> int:
    """Run ``relay`` and return its exit code, or end by the signal that ended it."""
    keep_access_to_own_files()
    prepare_streams()
    code = exits.guarded(lambda: relay.main(argv, prog_name="relay", standalone_mode=False))
    return exits.end_by_signal(code)
