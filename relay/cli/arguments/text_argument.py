"""Commands whose last argument is any text, even one that looks like an option."""

from __future__ import annotations

from typing import Any

import click

from relay.cli.process.exits import CommandError, Exit


class TextCommand(click.Command):
    """A command that explains what to do if its text was taken for an option."""

    def __init__(self, *args: Any, example: str, undone: str, **more: Any) -> None:  # noqa: ANN401 - click's
        """As ``click.Command``.

        Args:
            args: as there.
            example: its arguments, with ``--`` before the text.
            undone: what did not happen, for users who asked for help and perhaps meant a text.
            more: as there.
        """
        super().__init__(*args, **more)
        self._example = example
        self._undone = undone

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; explain what to do if a text was taken for an option.

        Help counts as an answer only if nothing else was given: a script that sends the text
        "--help" must not take it for success.
        """
        hint = f"If this is the text, put -- before it: {ctx.command_path} {self._example}"
        asked = args[: args.index("--")] if "--" in args else args
        if len(args) > 1 and not {"-h", "--help"}.isdisjoint(asked):
            click.echo(ctx.get_help(), err=True)  # noqa: TID251  # our own text
            raise CommandError(f"{self._undone}. {hint}", Exit.USAGE)
        try:
            return super().parse_args(ctx, args)
        except (click.NoSuchOption, click.BadOptionUsage) as error:
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from None
