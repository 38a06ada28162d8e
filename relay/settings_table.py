"""Generates docs/settings.md from the declarations: ``python -m relay.settings_table``."""

from __future__ import annotations

import sys

from relay.settings import as_toml, declarations

HEAD = """\
<!-- Made by `python -m relay.settings_table > docs/settings.md`; a test compares. -->
# Settings

Every setting of `relay serve`. The first of these sources that sets a value wins: the command-line
flag, the environment variable, the file given by `--config` (or `RELAY_CONFIG`), the default.
`relay serve --print-config` shows each value and where it came from; `--check-config` only
validates the configuration. An unknown key is an error, never ignored. In a variable, the elements
of a list are separated by commas.

Two variables of other programs are used as defaults: `WEB_CONCURRENCY` (workers) and
`STATE_DIRECTORY` (data, set by systemd).
"""
PLATFORM_DEFAULTS = {"store.data": "the user's data directory"}


def markdown() -> str:
    """Return the page."""
    lines = [HEAD]
    section = ""
    for setting in declarations():
        if setting.section != section:
            section = setting.section
            lines += [f"## [{section}]", "", "| key | default | variable | meaning |"]
            lines.append("|---|---|---|---|")
        default = PLATFORM_DEFAULTS.get(setting.path) or f"`{as_toml(setting.default)}`"
        lines.append(f"| `{setting.key}` | {default} | `{setting.variable}` | {setting.why} |")
    return "\n".join(lines).replace("|\n##", "|\n\n##") + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
