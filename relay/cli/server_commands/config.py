"""``relay config``: a commented settings file, checking one, and showing the effective settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from relay import configuration
from relay.bounded_files import STDIN
from relay.cli.arguments.groups import CommandGroup
from relay.cli.arguments.options import STANDARD, typed_path
from relay.cli.console.printing import print_json, print_line, print_whole
from relay.cli.process.exits import CommandError, Exit
from relay.declarations import as_toml, declarations
from relay.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
VALID: Final = "The settings are valid."


def _read_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    path = typed_path(ctx, param, value)
    return STDIN if path == STANDARD else path


def _file(command: _F) -> _F:
    """Add FILE, also as the option of other commands; the command gets its path."""

    @functools.wraps(command)
    def with_file(file: Path | None, config: Path | None, **options: object) -> object:
        source = click.get_current_context().get_parameter_source("config")
        if file is not None and source is ParameterSource.COMMANDLINE:
            raise click.UsageError("the file is given twice: as FILE, and with --config")
        return command(file=file or config, **options)

    option = click.option(
        "-c",
        "--config",
        envvar="RELAY_CONFIG",
        metavar="FILE",
        callback=_read_path,
        help="The same as FILE.",
    )
    argument = click.argument("file", metavar="[FILE]", required=False, callback=_read_path)
    return argument(option(with_file))  # type: ignore[return-value]


@click.group(cls=CommandGroup)
def config() -> None:
    """The settings of "relay serve", in a TOML file.

    Without FILE, $RELAY_CONFIG is used if it is set; - means standard input or output. Variables
    apply as for "relay serve"; its flags are checked by "relay serve --check-config".
    """


@config.command()
@click.argument("file", metavar="[FILE]", required=False, callback=typed_path)
def init(file: Path | None) -> int:
    """Write FILE with every setting, its default and its meaning; print it without FILE, or for -.

    An existing file is not changed.
    """
    from relay.settings_file import template

    text = template()
    if file is None or file == STANDARD:
        for line in text.splitlines():
            print_whole(line)
        return Exit.OK
    try:
        new = file.open("x", encoding="utf-8")
    except FileExistsError:
        raise UsageError(
            f"{file}: exists and is not overwritten; choose another name, or print the settings "
            "with: relay config init"
        ) from None
    try:
        with new:
            new.write(text)
    except OSError as error:
        file.unlink()  # half of it would look like all of it
        raise CommandError(f"{file}: {error.strerror}") from None
    return Exit.OK


@config.command()
@_file
def check(file: Path | None) -> int:
    """Report everything that is wrong with the settings, one mistake per line."""
    configuration.load({}, os.environ, file)
    print_line(VALID)
    return Exit.OK


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, by the settings' names.")
@_file
def show(file: Path | None, as_json: bool) -> int:
    """Print the value of every setting and its source."""
    loaded = configuration.load({}, os.environ, file)
    if as_json:
        entries = {
            path: {"value": value, "source": loaded.sources[path]} for path, value in _all(loaded)
        }
        print_json(entries)
    else:
        print_settings(loaded)
    return Exit.OK


def print_settings(loaded: configuration.Loaded) -> None:
    """Print each setting as in the file, with its source as a comment."""
    for path, value in _all(loaded):
        print_whole(f"{path} = {as_toml(value)}  # {loaded.sources[path]}")


def _all(loaded: configuration.Loaded) -> list[tuple[str, object]]:
    return [(d.path, loaded.settings.value_of(d.path)) for d in declarations()]
