"""Whose keys the senders' are: honest chains are silent, what a malicious server does is loud."""

from __future__ import annotations

import pytest

from relay.chat.accounts import chain, links
from relay.chat.accounts.chain import Pin
from relay.chat.accounts.links import Kind
from relay.client.senders import ANSWER_S, NUMBER, Senders
from relay.wire.device_keys import PrivateDeviceKey, verify
from relay.wire.envelopes import Account, Chain, Devices
from tests.vectors.accounts import key, signed

SERVER = bytes(range(32))
A, B, C, D = (key(label) for label in "abcd")
NONCE = b"n" * 16


def root(owner: PrivateDeviceKey = A, nonce: bytes = NONCE, name: str = "alice") -> bytes:
    return signed(chain.root_body(SERVER, name, nonce, owner.public), owner)


def longer(
    packed: list[bytes], kind: Kind, subject: PrivateDeviceKey, *by: PrivateDeviceKey
) -> list[bytes]:
    held = chain.read(packed, verify)[-1]
    return [*packed, signed(held.next_body(kind, subject.public, by[0].public), *by)]


ONE = [root()]
TWO = longer(ONE, Kind.ADD, B, A, B)
THREE = longer(TWO, Kind.REMOVE, A, B)
FORK = longer(ONE, Kind.ADD, C, A, C)
ANEW = [root(D, b"m" * 16)]


def pin_of(packed: list[bytes]) -> Pin:
    return chain.read(packed, verify)[-1].pin


class Reader:
    """A client that reads, and what its server answers."""

    def __init__(self, pins: dict[str, Pin] | None = None, own: list[bytes] | None = None) -> None:
        self.pins = {} if pins is None else pins
        self.senders = Senders()
        self.senders.begin(SERVER, "reader", self.pins, own)

    def sees(
        self, device: PrivateDeviceKey, packed: list[bytes] | None, name: str = "alice"
    ) -> list[str]:
        """A message came; the server answers the question, if there is one. Return warnings."""
        pair = (name, links.key_id(device.public))
        if pair not in self.senders.known:
            self.senders.look("lobby", *pair, now=0.0)
        for question in self.senders.requests(0.0):
            assert question == Devices(NUMBER, name, 0)
            if packed is None:
                self.senders.refused("no", 0.0)
            else:
                self.senders.received(Chain(NUMBER, name, packed, True), 0.0)
        warnings, self.senders.warnings = self.senders.warnings, []
        assert all((one.room, one.name) == ("lobby", name) for one in warnings)
        return [one.detail for one in warnings]


def test_a_first_contact_is_pinned() -> None:
    reader = Reader()
    assert reader.sees(A, TWO) == []
    assert reader.pins == {"alice": pin_of(TWO)}
    assert reader.senders.seen == {"alice": pin_of(TWO)}
    assert reader.sees(A, None) == [], "and is not asked about again"


def test_a_new_device_that_the_chain_proves_is_silent() -> None:
    reader = Reader({"alice": pin_of(ONE)})
    assert reader.sees(B, TWO) == []
    assert reader.sees(A, THREE) == [], "what a removed device wrote stays what it is"
    assert reader.pins["alice"] == pin_of(THREE)


@pytest.mark.parametrize(
    ("device", "packed", "output"),
    [
        (C, FORK, "contradicts"),
        (D, ANEW, "begun anew"),
        (A, ONE, "lost, or hides"),
        (A, [TWO[0], TWO[1][:-1] + b"\0"], "false list"),
        (A, [], "does not exist"),
        (A, [root(name="bob")], "somebody else's"),
        (D, TWO, "not one of their devices"),
        (A, None, "does not give"),
    ],
)
def test_what_a_malicious_server_tries_is_loud(
    device: PrivateDeviceKey, packed: list[bytes] | None, output: str
) -> None:
    """A fork, another beginning, a rollback, a forged link, another's chain, a stranger's key."""
    reader = Reader({"alice": pin_of(TWO)})
    warnings = reader.sees(device, packed)
    assert warnings
    assert output in warnings[0]


def test_a_chain_of_another_server_is_none() -> None:
    other = signed(chain.root_body(bytes(32), "alice", NONCE, A.public), A)
    assert "somebody else's" in Reader().sees(A, [other])[0]


def test_silence_is_loud_in_the_end() -> None:
    reader = Reader()
    reader.senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert list(reader.senders.requests(0.0))
    assert reader.senders.deadline == ANSWER_S
    reader.senders.overdue(ANSWER_S - 1)
    assert not reader.senders.warnings
    reader.senders.overdue(ANSWER_S)
    assert "no answer" in reader.senders.warnings[0].detail


def test_guests_and_old_messages_prove_nothing_and_are_not_asked_about() -> None:
    senders = Reader().senders
    senders.look("lobby", "~bob", b"", now=0.0)
    senders.look("lobby", "alice", b"", now=0.0)
    assert list(senders.requests(0.0)) == []


def test_a_long_chain_comes_in_pages() -> None:
    senders = Reader().senders
    senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 0)]
    senders.received(Chain(NUMBER, "alice", THREE[:2], False), 0.0)
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 2)]
    senders.received(Chain(NUMBER, "alice", THREE[2:], True), 0.0)
    assert senders.seen == {"alice": pin_of(THREE)}
    assert not senders.warnings


def test_what_the_server_has_lost_is_given_back() -> None:
    """Restored from a backup: the account's own device has the links that are missing."""
    own = list(THREE)
    senders = Senders()
    senders.begin(SERVER, "alice", {"alice": pin_of(THREE)}, own)
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 0)]
    senders.received(Chain(NUMBER, "alice", ONE, True), 0.0)
    given = []
    for _ in range(2):
        (request,) = senders.requests(0.0)
        assert isinstance(request, Account)
        given.append(request.content)
        senders.done(0.0)
    assert TWO[1] in given[0]
    assert THREE[2] in given[1]
    assert not senders.warnings


def test_unasked_answers_mean_nothing() -> None:
    senders = Reader().senders
    senders.received(Chain(NUMBER, "alice", ANEW, True), 0.0)
    senders.done(0.0)
    senders.refused("", 0.0)
    assert not senders.seen
    assert not senders.warnings
