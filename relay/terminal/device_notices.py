"""Describes how a user's devices contradict what was seen before, for a decision. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from relay.client.account_calls import DeviceChange, DeviceList
from relay.client.devices.device_key import public_text
from relay.terminal.text import harmless_name

CODE_CHARS: Final = 12
"""Of the fingerprint of a list, typed to accept exactly that list: 60 bits, too many to create a
matching list while a person reads."""


def code_of(change: DeviceChange) -> str:
    """Return the code for the new list, to be typed."""
    return public_text(change.now.head)[:CODE_CHARS]


def change_lines(change: DeviceChange) -> Iterator[str]:
    """Yield the differences between the old and the new list."""
    yield f"{harmless_name(change.name)}: {change.detail}"
    yield f"before: {_list(change.before)}"
    yield f"now:    {_list(change.now)}"
    for device in change.devices:
        yield f"  {device.key}{' removed' if device.removed else ''}"


def _list(one: DeviceList) -> str:
    return f"account {public_text(one.account)}, list {public_text(one.head)}, change {one.number}"
