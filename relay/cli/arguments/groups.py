"""Groups of commands: without a command, one prints its help."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.process.exits import Exit


class CommandGroup(click.Group):
    """A group without a command of its own: alone it prints its help on stderr, as a usage error.

    Not click's ``no_args_is_help``, whose stream and exit code depend on click's version.
    """

    def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401 - whatever click passes
        """As ``click.Group``."""
        more["invoke_without_command"] = True
        super().__init__(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click's
        """Run the given command, if any."""
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help(), err=True)  # noqa: TID251  # our own text
            return Exit.USAGE
        return result
