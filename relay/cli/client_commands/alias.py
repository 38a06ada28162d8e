"""``relay alias``: short names for addresses."""

from __future__ import annotations

import click

from relay.cli.arguments.aliases import Aliases
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import LINES
from relay.cli.console.printing import print_json, print_whole
from relay.cli.process.exits import Exit


@click.group(cls=CommandGroup)
def alias() -> None:
    """Short names for addresses: "relay send work lobby".

    They are stored in relay/aliases in your configuration directory.
    """


@alias.command()
@click.argument("name", metavar="NAME")
@click.argument("address", metavar="ADDRESS")
def add(name: str, address: str) -> int:
    """Make NAME stand for ADDRESS."""
    Aliases.of_user().add(name, address)
    return Exit.OK


@alias.command("list")
@LINES
def list_(as_json: bool) -> int:
    """List the aliases, one per line."""
    for name, address in sorted(Aliases.of_user().all().items()):
        if as_json:
            print_json({"name": name, "address": str(address)})
        else:
            print_whole(f"{name} {address}")
    return Exit.OK


@alias.command()
@click.argument("name", metavar="NAME")
def remove(name: str) -> int:
    """Remove the alias NAME."""
    Aliases.of_user().remove(name)
    return Exit.OK
