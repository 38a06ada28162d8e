"""Which environment variables are meant for Relay, and which only look like it. Pure functions.

A variable may have our prefix for other reasons: the client has some of its own, and Kubernetes and
Docker create such names for every service called relay. Those are harmless. A misspelled setting is
an error, because otherwise it would be ignored silently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "RELAY_"
OTHERS: Final = (
    "RELAY_ADDRESS", "RELAY_CONFIG", "RELAY_KNOWN_SERVERS", "RELAY_DEBUG", "RELAY_HANDOVER",
)  # fmt: skip
"""Variables with our prefix that are not settings."""
_INJECTED: Final = re.compile(
    r"RELAY_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_\w+)?)|RELAY_(\w+_)?ENV_\w+|RELAY_NAME"
)
"""Defined by Kubernetes and by Docker's links for a service called relay or relay-something."""
_NEAR: Final = 0.9
"""How similar to one of ours a name must be to count as misspelled, without further evidence."""


def variable_name(section: str, key: str) -> str:
    """Return the name of the variable that sets a setting."""
    return f"{PREFIX}{section}__{key}".upper()


def near_miss(variable: str, settings: Iterable[tuple[str, str]]) -> str | None:
    """Return the variable that was probably meant by one that is not a setting.

    Args:
        variable: its name.
        settings: (section, key) of each setting.

    Returns:
        A name; empty if it begins with RELAY_SECTION__ but nothing is near; None if not ours.
    """
    if not variable.startswith(PREFIX) or variable in OTHERS or _INJECTED.fullmatch(variable):
        return None
    known = {(section, key): variable_name(section, key) for section, key in settings}
    for (_, key), name in known.items():
        # The underscores may differ; the section may be missing, if the rest is right.
        if _squeezed(variable) in (_squeezed(name), _squeezed(PREFIX + key)):
            return name
    for section in dict.fromkeys(section for section, _ in known):
        if variable.startswith(start := variable_name(section, "")):
            by_key = {key: name for (_, key), name in reversed(known.items())}
            close = difflib.get_close_matches(variable.removeprefix(start).lower(), by_key, n=1)
            return by_key[close[0]] if close else ""
    close = difflib.get_close_matches(variable, [*known.values(), *OTHERS], n=1, cutoff=_NEAR)
    return close[0] if close else None


def _squeezed(variable: str) -> str:
    return variable.replace("_", "").upper()
