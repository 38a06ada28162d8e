"""Manual pages and shell completion: ``python -m relay.cli.manual deploy/share``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from relay import __version__
from relay.cli.main import COMMANDS, relay

SECTION: Final = 1
_SHELLS: Final = {
    "bash": "bash-completion/completions/relay",
    "zsh": "zsh/site-functions/_relay",
    "fish": "fish/vendor_completions.d/relay.fish",
}
_SEE: Final = "The settings of a server: relay config init. Everything else: the directory docs/."


def pages() -> Iterator[tuple[str, str]]:
    """Yield (file name, text) of each page: for relay, and for each of its commands."""
    context = click.Context(relay, info_name="relay", **relay.context_settings)
    yield f"relay.{SECTION}", _page(relay, context, "a self-hosted, encrypted chat relay")
    for name, entry in COMMANDS.items():
        command = relay.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        yield f"relay-{name}.{SECTION}", _page(command, below, entry.summary)


def _page(command: click.Command, context: click.Context, summary: str) -> str:
    title = context.command_path.replace(" ", "-")
    lines = [
        f'.TH "{title.upper()}" "{SECTION}" "" "relay {__version__}" "Relay"',
        ".SH NAME",
        _plain(f"{title} \\- {summary[0].lower()}{summary[1:].rstrip('.')}"),
    ]
    lines += [".SH SYNOPSIS", *_synopsis(command, context)]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help or "")]
    lines += _options(command, context, ".SH OPTIONS")
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS", *_commands(command, context)]
    if command.epilog:
        lines += [".SH NOTES", *_paragraphs(command.epilog)]
    lines += [".SH SEE ALSO", *_see_also(title), ".PP", _plain(_SEE)]
    return "\n".join(lines) + "\n"


def _synopsis(command: click.Command, context: click.Context) -> list[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    return [f".B {_plain(context.command_path)}", _plain(usage)]


def _options(command: click.Command, context: click.Context, heading: str) -> list[str]:
    lines = []
    for parameter in command.get_params(context):
        names, text = parameter.get_help_record(context) or ("", "")
        if text and parameter.name != "help":
            lines += [".TP", f"\\fB{_plain(names)}\\fP", _plain(text)]
    return [heading, *lines] if lines else []


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        if context.parent is None:
            yield from (".TP", f"\\fB{_plain(f'relay {name}')}\\fP", _plain(COMMANDS[name].summary))
            continue
        usage = " ".join(command.collect_usage_pieces(below))
        yield from (".SS " + _plain(f'"{below.command_path} {usage}"'), *_paragraphs(command.help))
        yield from _options(command, below, ".PP")


def _see_also(title: str) -> Iterator[str]:
    names = ["relay", *(f"relay-{name}" for name in COMMANDS)]
    yield ",\n".join(f"\\fB{_plain(name)}\\fP({SECTION})" for name in names if name != title)


def _paragraphs(text: str | None) -> Iterator[str]:
    for number, paragraph in enumerate((text or "").split("\n\n")):
        words = " ".join(paragraph.replace("\b", "").split())
        if words:
            yield from ([".PP"] if number else [])
            yield _plain(words)


def _plain(text: str) -> str:
    """Escape text for troff: hyphens stay hyphens, and no line is a request."""
    kept = text.replace("\\- ", "\0")
    kept = kept.replace("\\", "\\e").replace("-", "\\-").replace("\0", "\\- ")
    return f"\\&{kept}" if kept.startswith((".", "'")) else kept


def completions() -> Iterator[tuple[str, str]]:
    """Yield (path below share/, text) of the completion files of each shell."""
    for shell, path in _SHELLS.items():
        found = get_completion_class(shell)
        assert found is not None
        yield path, found(relay, {}, "relay", "_RELAY_COMPLETE").source().rstrip() + "\n"


def files() -> dict[str, str]:
    """Return all files, by their path below share/."""
    return {f"man/man{SECTION}/{name}": text for name, text in pages()} | dict(completions())


def main() -> int:
    """Write all files to a directory."""
    for name, text in files().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
