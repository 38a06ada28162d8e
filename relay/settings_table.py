"""Generates docs/settings.md from the declarations: ``python -m relay.settings_table``."""

from __future__ import annotations

import sys

from relay.declarations import PLATFORM_DEFAULTS, as_toml, declarations

HEAD = """\
<!-- Made by `python -m relay.settings_table > docs/settings.md`; a test compares. -->
# Settings

Every setting of `relay serve`. In order of precedence: the flag, the variable, the file named by
`--config` (or `RELAY_CONFIG`), the default. In a variable, items of a list are separated by commas,
and an empty variable counts as unset. `~` in a path is your home directory.

    relay config init relay.toml      # a file with every setting, its default and meaning
    relay config check relay.toml     # all mistakes at once, with file and line; exit code 2
    relay config show relay.toml      # each value and where it came from

`relay serve --check-config` and `--print-config` do the same with the flags that are given, too.
Where "reload" is yes, a change takes effect with a reload (HUP, `relay ctl reload`), for open
connections as well. The others need a restart, and a reload that would change one is refused.

There are no passwords among the settings: a secret is only ever named by its file.

A key that does not exist is an error, never ignored. So is a variable that nearly is one of these
(`RELAY_SERVER_WORKERS`, `RELAY_WORKERS`); other variables that begin with `RELAY_` are left alone,
because orchestrators define some (`RELAY_PORT`, `RELAY_SERVICE_HOST`).

Two variables of other programs are used as defaults: `WEB_CONCURRENCY` (workers) and
`STATE_DIRECTORY` (data, set by systemd).
"""


def markdown() -> str:
    """Return the page."""
    lines = [HEAD]
    section = ""
    for setting in declarations():
        if setting.section != section:
            section = setting.section
            lines += [f"## [{section}]", "", "| key | default | variable | reload | meaning |"]
            lines.append("|---|---|---|---|---|")
        live = "yes" if setting.live else ""
        default = PLATFORM_DEFAULTS.get(setting.path) or f"`{as_toml(setting.default)}`"
        cells = (f"`{setting.key}`", default, f"`{setting.variable}`", live, setting.why)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("|\n##", "|\n\n##") + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
