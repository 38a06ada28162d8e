"""Which keys had a name before an operator's reset."""

from __future__ import annotations

import pytest

from relay.chat.accounts import events
from relay.chat.accounts.chain import begun, root_body
from relay.chat.accounts.events import Created, Linked, Named, Reserved
from relay.chat.accounts.former import former_keys
from relay.chat.accounts.links import Kind, key_id, parse
from relay.client.devices.device_key import DeviceKey
from tests.support.devices import device

PHONE, LAPTOP, NEXT, LAST = map(device, ("phone", "laptop", "next", "last"))
RESET = Reserved(bytes(32), 5, False)


def root(key: DeviceKey, nonce: bytes) -> Created:
    body = root_body(bytes(32), "alice", nonce * 16, key.public).packed()
    return Created(body + key.sign(body), False, b"")


def added(to: Created, key: DeviceKey, by: DeviceKey) -> Linked:
    body = begun(parse(to.link), None).next_body(Kind.ADD, key.public, by.public).packed()
    signed = body + by.sign(body)
    return Linked(signed + key.sign(parse(signed).signed))


FIRST, SECOND, THIRD = root(PHONE, b"1"), root(NEXT, b"2"), root(LAST, b"3")
LOG: list[events.Event] = [
    FIRST, added(FIRST, LAPTOP, PHONE), Named(PHONE.public, "phone"), RESET, SECOND,
]  # fmt: skip
OF_FIRST, OF_SECOND = (parse(one.link).hash for one in (FIRST, SECOND))
KEYS = {key_id(PHONE.public): OF_FIRST, key_id(LAPTOP.public): OF_FIRST}


@pytest.mark.parametrize(
    ("happened", "of", "former"),
    [
        (LOG[:3], FIRST, {}),
        (LOG, SECOND, KEYS),
        ([*LOG, added(SECOND, LAPTOP, NEXT)], SECOND, {key_id(PHONE.public): OF_FIRST}),
        ([*LOG, RESET, THIRD], THIRD, KEYS | {key_id(NEXT.public): OF_SECOND}),
        ([*LOG, RESET, THIRD], SECOND, KEYS),
        ([*LOG, RESET, root(PHONE, b"3")], root(PHONE, b"3"),
         {key_id(LAPTOP.public): OF_FIRST, key_id(NEXT.public): OF_SECOND}),
    ],
    ids=["never reset", "reset", "a device of both", "twice", "of before", "the first key again"],
)  # fmt: skip
def test_which_keys_were_anothers(
    happened: list[events.Event], of: Created, former: dict[bytes, bytes]
) -> None:
    assert former_keys(happened, parse(of.link).hash) == former


def test_the_first_account_of_a_name_reads_no_further() -> None:
    """Nobody had the name before; the rest of the account's log may be long."""
    log = iter([Reserved(bytes(32), 5, False), FIRST, *LOG[1:]])
    assert former_keys(log, OF_FIRST) == {}
    assert next(log) == LOG[1]


def test_a_reset_is_recognised_as_it_is_stored() -> None:
    assert events.may_be_reset(b"an entry " + events.pack(Reserved(b"h" * 32, 2**50, True)))
    assert not events.may_be_reset(b"".join(map(events.pack, LOG[:3])))
