"""Asks for confirmation of irreversible actions: at a terminal; scripts pass ``--yes``."""

from __future__ import annotations

import sys
from typing import Final

import click

from relay.chat.names import normal
from relay.cli.process.exits import CommandError

YES: Final = click.option("--yes", is_flag=True, help="Do not ask.")


def need_answer(*, yes: bool) -> None:
    """Check that a person can be asked, or that ``yes`` was given, before anything is done.

    Raises:
        click.UsageError: neither.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(
            "this cannot be undone, and there is no terminal to ask at: give --yes"
        )


def confirm(what: str, name: str, *, yes: bool) -> None:
    """Have a person type the name of what will be lost. With ``yes`` nobody is asked.

    Args:
        what: describes the action: a sentence without its end.
        name: of the room or account affected.
        yes: whether ``--yes`` was given.

    Raises:
        click.UsageError: there is no terminal.
        CommandError: another name was typed, or none.
    """
    need_answer(yes=yes)
    if yes:
        return
    typed = click.prompt(
        f"{what}. This cannot be undone. Type {name} to go on",
        default="",
        show_default=False,
        err=True,
    )
    if normal(str(typed).strip()) != normal(name):
        raise CommandError(f"that is not {name}: nothing was changed")
