"""``relay alias``: short names for addresses."""

from __future__ import annotations

import click

from relay.cli.aliases import Aliases
from relay.cli.exits import Exit


@click.group(invoke_without_command=True)
@click.pass_context
def alias(ctx: click.Context) -> int:
    """Short names for addresses: "relay send work lobby".

    They are kept in relay/aliases in your configuration directory.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
    return Exit.USAGE  # of no effect when a command runs


@alias.command()
@click.argument("name", metavar="NAME")
@click.argument("address", metavar="ADDRESS")
def add(name: str, address: str) -> int:
    """Make NAME stand for ADDRESS."""
    Aliases.of_user().add(name, address)
    return Exit.OK


@alias.command("list")
def list_() -> int:
    """List the aliases, one a line."""
    for name, address in sorted(Aliases.of_user().all().items()):
        click.echo(f"{name} {address}")
    return Exit.OK


@alias.command()
@click.argument("name", metavar="NAME")
def remove(name: str) -> int:
    """Forget NAME."""
    Aliases.of_user().remove(name)
    return Exit.OK
