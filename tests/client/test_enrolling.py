"""A new device accepts the link that another device has signed for it, and signs nothing else."""

from __future__ import annotations

from hashlib import sha256

import pytest

from relay.chat.accounts import chain, links
from relay.chat.accounts.links import Kind
from relay.client.devices.device_key import DeviceKey
from relay.client.errors import DeviceChainError
from relay.client.events import State
from relay.client.trust.lineage import Expected
from relay.wire.device_keys import verify
from relay.wire.envelopes import Done, Enrol, Hello
from relay.wire.identity import fingerprint
from tests.client.peer import Link
from tests.support.devices import device
from tests.support.pair import server_key

SERVER = sha256(server_key().spki).digest()
OWNER, NEW, OTHER = DeviceKey.generate(), device("alice"), device("mallory")


def offer(
    kind: Kind = Kind.ADD, server: bytes = SERVER, name: str = "alice", subject: DeviceKey = NEW
) -> bytes:
    """The server's message that a device has signed an ADD, which the new key has not signed."""
    body = chain.root_body(server, name, bytes(16), OWNER.public)
    held = chain.begun(links.parse(body.packed() + OWNER.sign(body.packed())), verify)
    asked = held.next_body(Kind.ADD, subject.public, OWNER.public)._replace(kind=kind).packed()
    return asked + OWNER.sign(asked)


def enrolling() -> tuple[Link, Enrol]:
    link = Link(expected_key=Expected(fingerprint(server_key().spki)), enrol=True)
    link.dial()
    assert not link.all_heard(Hello)
    return link, link.heard(Enrol)


def test_the_offer_for_this_key_is_signed() -> None:
    link, asked = enrolling()
    assert asked.countersignature == b""
    link.send_envelopes(Done(asked.request, offer()))
    again = link.heard(Enrol)
    complete = links.parse(offer() + again.countersignature)
    assert complete.complete
    assert complete.verified(verify)
    link.send_envelopes(Done(asked.request, b""))
    assert link.heard(Hello).name == "alice"


@pytest.mark.parametrize(
    "false",
    [
        offer(Kind.REMOVE), offer(server=bytes(32)), offer(name="mallory"), offer(subject=OTHER),
        offer() + OWNER.sign(b""), offer()[:-1], b"x",
    ],
    ids=["a removal", "server", "name", "key", "complete", "cut short", "none"],
)  # fmt: skip
def test_nothing_else_is_signed(false: bytes) -> None:
    """A malicious server would get, with this key, a device in an account of another owner."""
    link, asked = enrolling()
    link.send_envelopes(Done(asked.request, false))
    assert not link.all_heard(Enrol)
    assert not link.all_heard(Hello)
    assert link.condition() is State.CLOSED or link.close is not None
    assert isinstance(link.state.error, DeviceChainError)
