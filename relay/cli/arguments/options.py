"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from relay.cli.arguments.destination import split
from relay.client.address import Address
from relay.errors import UsageError
from relay.limits import INVITATION_DAYS, INVITATION_DAYS_MAX
from relay.paths import expanded

_F = TypeVar("_F", bound=Callable[..., Any])
STANDARD: Final = Path("-")
"""Instead of a file that is only read, or only written: standard input or output."""


class NumberRange(click.FloatRange):
    """A number within bounds. Python accepts "nan" as a float, and as within all bounds."""

    def convert(
        self,
        value: Any,  # noqa: ANN401  # as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """Return the number. Raises click.BadParameter."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def days_option(help_text: str) -> Callable[[_F], _F]:
    """Return the option for how long an invitation is valid."""
    return click.option(
        "--days",
        type=NumberRange(min=0, min_open=True, max=INVITATION_DAYS_MAX),
        default=INVITATION_DAYS,
        show_default=True,
        metavar="N",
        help=help_text,
    )


def typed_path(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Return an option's path, with ``~`` expanded; a callback for options.

    Raises:
        click.BadParameter: it is empty, or there is no such home directory.
    """
    try:
        return None if value is None else expanded(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def typed_directory(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Return the path of a directory, as ``typed_path`` does.

    Raises:
        click.BadParameter: also for ``-``, which is standard input or output to other commands.
    """
    path = typed_path(ctx, param, value)
    if path == STANDARD:
        raise click.BadParameter("it is a directory; one that is called - is ./-", ctx, param)
    return path


data_option = click.option(
    "--data", metavar="DIR", help="The relay's data directory.  [default: as for relay serve]"
)
config_option = click.option(
    "-c",
    "--config",
    callback=typed_path,
    envvar="RELAY_CONFIG",
    metavar="FILE",
    help="Its settings.",
)
"""With ``data_option``: selects a relay on this machine, as ``ctl_client`` finds it."""
document_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on one line."
)
LINES: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object per line."
)
NUMBERS: Final = click.option(
    "--numbers", is_flag=True, help="Show each message's number, as #N before the sender."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A relay, and which of its keys to trust."""

    address: Address
    known_servers: Path | None
    """None: the user's own file."""
    fingerprint: str | None
    accept_new: bool


def places(*required: str, optional: Sequence[str], unless: str = "") -> Callable[[_F], _F]:
    """Add the arguments: ADDRESS, and those with these names. Goes first, ``target_options`` last.

    The command gets them by their lower-case names, and the address within its ``target``. If the
    option ``unless`` is used there is no address, and the target is None.
    """
    names = (*required, *optional)
    metavar = " ".join(["[ADDRESS]", *required, *(f"[{name}]" for name in optional)])

    def add(command: _F) -> _F:
        @functools.wraps(command)
        def with_places(typed: tuple[str, ...], **options: object) -> object:
            address: Address | None = None
            if unless and options.get(unless) is not None:
                if len(typed) != len(required):
                    raise click.UsageError(f"--{unless} and ADDRESS cannot be used together")
                values: Sequence[str | None] = typed
            else:
                address, values = split(typed, required, optional)
            after = {name.lower(): value for name, value in zip(names, values, strict=True)}
            return command(address=address, **after, **options)

        argument = click.argument("typed", nargs=-1, metavar=metavar)
        return argument(with_places)  # type: ignore[return-value]

    return add


def target_options(command: _F) -> _F:
    """Add the options about the server's key; the command gets them and ADDRESS as ``target``."""

    # wraps also keeps the parameters that click has recorded on the command.
    @functools.wraps(command)
    def with_target(
        address: Address | None,
        known_servers: Path | None,
        fingerprint: str | None,
        accept_new: bool,
        **rest: object,
    ) -> object:
        if address is None:
            return command(None, **rest)
        return command(Target(address, known_servers, fingerprint, accept_new), **rest)

    wrapped: Any = with_target
    for add in (
        click.option(
            "--accept-new",
            is_flag=True,
            help="Trust and remember the key of an unknown server without asking. A changed key is"
            " still refused.",
        ),
        click.option(
            "--fingerprint",
            metavar="FINGERPRINT",
            help="Fingerprint of the server's key, if ADDRESS has none.",
        ),
        click.option(
            "--known-servers",
            callback=typed_path,
            metavar="FILE",
            help="File of known server keys.  [default: $RELAY_KNOWN_SERVERS, or"
            " relay/known_servers in your configuration directory]",
        ),
    ):
        wrapped = add(wrapped)
    return wrapped  # type: ignore[no-any-return]
