"""The console command ``relay``: its group of commands, and the exit codes."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from relay import __version__, compiled
from relay.cli.arguments.groups import CommandGroup
from relay.cli.process import exits
from relay.cli.process.streams import prepare_streams
from relay.loading import no_collections
from relay.refused_calls import set_umask


class Entry(NamedTuple):
    """Where a command is, so that ``relay --help`` need not import it."""

    package: str
    summary: str

    def command(self, name: str) -> Any:  # noqa: ANN401
        """Import it. Raises ModuleNotFoundError where a library is missing."""
        return getattr(import_module(f"relay.cli.{self.package}.{name}"), name)


USERS: Final = "client_commands"
OWN_MACHINE: Final = "server_commands"
COMMANDS: Final = {
    "chat": Entry(USERS, "Chat in a room."),
    "send": Entry(USERS, "Send a text or each line of the input to a room."),
    "tail": Entry(USERS, "Follow a room and print its messages."),
    "history": Entry(USERS, "Print or search the history of a room."),
    "register": Entry(USERS, "Claim a name, with a key of this device."),
    "device": Entry(USERS, "Add, list and remove devices of your account."),
    "account": Entry(USERS, "Choose who may write to you; delete your account."),
    "export": Entry(USERS, "Export all your data, as JSON lines."),
    "invite": Entry(USERS, "Make an invitation (operators)."),
    "user": Entry(USERS, "Manage accounts (operators)."),
    "room": Entry(USERS, "List rooms, and manage rights in them."),
    "alias": Entry(USERS, "Give addresses short names."),
    "serve": Entry(OWN_MACHINE, "Run a relay server (Linux)."),
    "key": Entry(OWN_MACHINE, "Show and change a server's key (Linux)."),
    "ctl": Entry(OWN_MACHINE, "Inspect and control a running server (Linux)."),
    "backup": Entry(OWN_MACHINE, "Create, verify and restore backups (Linux)."),
    "data": Entry(OWN_MACHINE, "Check, repair, export and import messages (Linux)."),
    "config": Entry(OWN_MACHINE, "Write, check and show a server's settings."),
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
                command = entry.command(cmd_name)
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
    mask = set_umask(0o077)
    set_umask(mask & 0o077)


def main(argv: list[str] | None = None) -> int:
    """Run ``relay`` and return its exit code, or end by the signal that ended it."""
    keep_access_to_own_files()
    prepare_streams()
    code = exits.guarded(lambda: relay.main(argv, prog_name="relay", standalone_mode=False))
    return exits.end_by_signal(code)
