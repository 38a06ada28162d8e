"""Options about rooms, common to ``relay room`` and ``relay ctl room``."""

from __future__ import annotations

from typing import Final

import click

from relay.terminal.room_commands import seconds_of, size_of


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int:
    found = 0 if value is None else seconds_of(value)
    if found is None:
        raise click.BadParameter(f"invalid time {value!r}: use 30s, 10m, 2h or 7d", ctx, param)
    return found


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int:
    found = 0 if value is None else size_of(value)
    if found is None:
        raise click.BadParameter(f"invalid size {value!r}: use 500K, 100M or 2G", ctx, param)
    return found


FOR: Final = click.option(
    "--for",
    "seconds",
    callback=_seconds,
    metavar="TIME",
    help="30s, 10m, 2h or 7d.  [default: for good]",
)
AGE: Final = click.option(
    "--age", callback=_seconds, metavar="TIME", help="Only those of the last 30s, 10m, 2h or 7d."
)
MESSAGES: Final = click.option(
    "--messages", type=click.IntRange(0), default=0, help="At most this many, the newest."
)
SIZE: Final = click.option(
    "--size", callback=_bytes, metavar="SIZE", help="At most 500K, 100M or 2G, the newest."
)
