"""Long device chains."""

from __future__ import annotations

import itertools

from relay.chat.accounts import chain, links
from relay.chat.accounts.links import Kind
from relay.wire.device_keys import PrivateDeviceKey
from tests.vectors.accounts import key, signed

LONGEST = chain.LINKS_MAX - 1
"""The last link can only remove a device, and here that is an even one."""


def grown(packed: list[bytes], owner: PrivateDeviceKey, count: int) -> list[bytes]:
    """Return a chain of so many links that begins with a root: devices are added and removed."""
    packed = list(packed)
    held = chain.begun(links.parse(packed[0]), None)
    for number in itertools.count():
        device = key(f"device {number}")
        for kind, by in ((Kind.ADD, (owner, device)), (Kind.REMOVE, (owner,))):
            if len(packed) >= count:
                return packed
            packed.append(signed(held.next_body(kind, device.public, owner.public), *by))
            held = held.extended(links.parse(packed[-1]), None)
    raise AssertionError
