"""A commented settings file, generated from the declarations."""

from __future__ import annotations

import textwrap
from typing import Final

from relay.declarations import PLATFORM_DEFAULTS, as_toml, declarations

HEAD: Final = """\
# Settings of a relay: relay serve --config FILE
#
# Every setting is here, with its default, behind a "#": remove it to change one. A flag of
# "relay serve" and the variable of a setting win over this file. "relay config check FILE" tells
# what is wrong with it.
"""
EXAMPLES: Final = {"store.data": "/var/lib/relay"}
"""Examples for settings whose default differs from user to user."""
_WIDTH: Final = 98


def template() -> str:
    """Return the file, with everything commented out."""
    lines = [HEAD]
    section = ""
    for setting in declarations():
        if setting.section != section:
            section = setting.section
            lines += [f"[{section}]", ""]
        why = setting.why
        if setting.path in PLATFORM_DEFAULTS:
            why += f" Default: {PLATFORM_DEFAULTS[setting.path]}."
        takes = f"Takes {setting.expected}. Variable: {setting.variable}."
        if setting.live:
            takes += " Changes with a reload."
        for text in (why, takes):
            lines += [f"# {line}" for line in textwrap.wrap(text, _WIDTH, break_on_hyphens=False)]
        example = EXAMPLES.get(setting.path)  # computing the default may need a home directory
        value = setting.default if example is None else example
        lines += [f"#{setting.key} = {as_toml(value)}", ""]
    return "\n".join(lines)
