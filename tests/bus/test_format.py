"""The format of the bus has a number: a change of the messages requires a new one."""

from __future__ import annotations

from hashlib import blake2s

from relay.bus import messages
from relay.bus.format import BUS_FORMAT
from relay.chat import entries
from relay.chat.accounts import requests as account_requests
from relay.chat.rooms import requests as room_requests

FORMATS = {
    1: "815468b263854490",
    2: "946526e0b670d44c",
    3: "dc7bdd0e1f8b19f6",
    4: "c68e5fbf40815d42",
    5: "61ee0e41b4a0ef6d",
    6: "a93c45446955dc4b",
    7: "74f727744c99d5ad",
}
"""By number, a digest of all messages between workers."""


def test_the_number_stands_for_what_workers_send_each_other() -> None:
    described = [
        (module.__name__, name, kind._fields)
        for module in (messages, entries, account_requests, room_requests)
        for name, kind in sorted(vars(module).items())
        if isinstance(kind, type) and hasattr(kind, "_fields")
    ]
    numbers = [(op.name, op.value) for op in messages.Op]
    digest = blake2s(repr((described, numbers)).encode(), digest_size=8).hexdigest()
    assert FORMATS[BUS_FORMAT] == digest, "another format: add its number and digest here"
    assert max(FORMATS) == BUS_FORMAT
