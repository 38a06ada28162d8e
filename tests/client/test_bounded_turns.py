"""What a malicious server can have its client compute in one turn of the program's event loop."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from relay.chat.accounts import chain, links
from relay.client.devices import chain_check, senders
from relay.client.devices.chain_check import LINKS_PER_TURN
from relay.client.devices.device_queries import NUMBER
from relay.client.devices.unverified import UnverifiedSenders
from relay.wire import envelopes as wire
from relay.wire.device_keys import PrivateDeviceKey, verify
from tests.client.test_hostile_server import EPOCH, joined
from tests.client.test_senders import A, B, Reader, root
from tests.support.chains import LONGEST, grown

SIGNATURES_PER_LINK = 2


def whole(count: int, name: str = "alice") -> list[bytes]:
    """A chain of so many links."""
    return grown([root(name=name)], A, count)


class Counter:
    """Counts the signatures that are verified."""

    def __init__(self, verify: Callable[[bytes, bytes, bytes], bool]) -> None:
        self._verify = verify
        self.count = 0

    def __call__(self, *parts: bytes) -> bool:
        self.count += 1
        return self._verify(*parts)

    def since(self) -> int:
        """Return how many there were since the last call."""
        found, self.count = self.count, 0
        return found


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(verify)
    monkeypatch.setattr(senders, "verify", counter)
    monkeypatch.setattr(chain_check, "verify", counter)
    return counter


def turns_of(reader: Reader, verified: Counter) -> list[int]:
    """Let the client go on until nothing is left; return the signatures of each turn."""
    counts = [verified.since()]
    while reader.senders.deadline == 0.0:
        reader.senders.overdue(0.0)
        counts.append(verified.since())
    return counts


def test_a_long_chain_takes_several_turns(verified: Counter) -> None:
    packed = whole(LONGEST)
    reader = Reader()
    reader.senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert reader.asked() == ["alice"]
    for first in (0, 128):
        answer = wire.Chain(NUMBER, "alice", packed[first : first + 128], first > 0)
        reader.senders.received(answer, 0.0)
        reader.asked()
    counts = turns_of(reader, verified)
    assert max(counts) <= LINKS_PER_TURN * SIGNATURES_PER_LINK
    assert sum(counts) > LONGEST
    assert reader.pins["alice"].number == LONGEST - 1
    assert reader.senders.deadline is None


def test_chains_of_many_senders_in_one_turn(verified: Counter) -> None:
    """The server knows what will be asked, and answers before the questions."""
    reader = Reader()
    names = [f"name-{number}" for number in range(20)]
    for name in names:
        reader.senders.look("lobby", name, links.key_id(A.public), now=0.0)
    for name in names:
        reader.senders.received(wire.Chain(NUMBER, name, whole(12, name), True), 0.0)
    assert verified.since() <= LINKS_PER_TURN * SIGNATURES_PER_LINK
    assert list(reader.pins) == names[:1]
    for _ in names:  # what was answered too early is asked for again, one at a time
        turns_of(reader, verified)
        for name in reader.asked():
            reader.senders.received(wire.Chain(NUMBER, name, whole(12, name), True), 0.0)
    turns_of(reader, verified)
    assert list(reader.pins) == names


def test_one_forged_chain_per_turn() -> None:
    """Each has the client look at all that it had proved."""
    reader = Reader()
    names = [f"name-{number}" for number in range(20)]
    for name in names:
        reader.senders.look("lobby", name, links.key_id(B.public), now=0.0)
    for name in names:
        reader.senders.received(wire.Chain(NUMBER, name, [b"x"], True), 0.0)
    assert len(reader.senders.warnings) == 1
    reader.senders.overdue(0.0)
    assert len(reader.senders.warnings) == 2, "the answer to the next question had come as well"


def test_links_that_the_server_has_lost(verified: Counter) -> None:
    """It says so as often as it likes: of its own account a client verifies what it has kept."""
    packed = whole(200)
    pins = {"reader": chain.read(packed, verify)[-1].pin}
    verified.since()
    reader = Reader(pins)
    reader.senders.begin(
        bytes(range(32)), "reader", chain.begun(links.parse(packed[0]), None).root, pins, packed, []
    )
    assert reader.asked() == ["reader"]
    reader.senders.received(wire.Chain(NUMBER, "reader", packed[:1], True), 0.0)
    counts = turns_of(reader, verified)
    assert max(counts) <= LINKS_PER_TURN * SIGNATURES_PER_LINK
    assert len(list(reader.senders.requests(0.0))) == 1, "and gives them back"


def test_a_login_looks_at_each_unverified_sender_once() -> None:
    """A server can have a client wait for the proof of 16,384 keys, and of 1024 senders."""
    keys, names = 2000, 200
    reader = Reader({"alice": chain.Pin(bytes(32), 0, bytes(32))})
    for number in range(keys):
        reader.senders.look("lobby", "alice", number.to_bytes(16, "big"), now=0.0)
    for number in range(names):
        reader.senders.look("lobby", f"name-{number}", bytes(16), now=0.0)
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(step)
    try:
        reader.again()
    finally:
        sys.setprofile(None)
    assert steps < 20 * (keys + names)
    assert len(reader.asked()) == 1
    assert reader.unverified.awaited_senders() == {"alice"}


def test_a_lost_connection_ends_a_verification(verified: Counter) -> None:
    reader = Reader()
    reader.senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert reader.asked() == ["alice"]
    reader.senders.received(wire.Chain(NUMBER, "alice", whole(100), True), 0.0)
    assert reader.senders.deadline == 0.0
    reader.again()
    assert reader.asked() == ["alice"]
    assert reader.senders.deadline != 0.0


def test_a_link_created_during_a_verification_is_kept() -> None:
    packed = whole(40, "reader")
    root_hash = links.hash_of(packed[0])
    reader = Reader()
    reader.senders.begin(bytes(range(32)), "reader", root_hash, {}, packed[:-1], [])
    assert reader.asked() == ["reader"]
    reader.senders.received(wire.Chain(NUMBER, "reader", packed[:-1], True), 0.0)
    assert reader.senders.deadline == 0.0
    reader.senders.own.extended(packed[-1])
    while reader.senders.deadline == 0.0:
        reader.senders.overdue(0.0)
    assert reader.senders.own.links == packed
    assert reader.senders.own.unsaved == packed


def test_a_chain_that_is_out_of_date_once_it_is_verified_is_no_contradiction() -> None:
    """A call has seen a later one meanwhile: the server has hidden nothing."""
    packed = whole(40)
    reader = Reader()
    reader.senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert reader.asked() == ["alice"]
    reader.senders.received(wire.Chain(NUMBER, "alice", packed[:-1], True), 0.0)
    assert reader.senders.deadline == 0.0
    chains = chain.read(packed, verify)
    reader.senders.hold(packed, chains)
    while reader.senders.deadline == 0.0:
        reader.senders.overdue(0.0)
    assert not reader.senders.warnings
    assert reader.asked() == ["alice"], "again"
    reader.senders.received(wire.Chain(NUMBER, "alice", packed, True), 0.0)
    while reader.senders.deadline == 0.0:
        reader.senders.overdue(0.0)
    assert not reader.senders.warnings
    assert reader.pins["alice"] == chains[-1].pin


def test_answers_to_nothing_look_at_no_held_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page waits for the proof of its authors; whatever else comes does not have it searched."""
    looked = 0
    must_wait = UnverifiedSenders.must_wait

    def counted(self: UnverifiedSenders, event: object) -> bool:
        nonlocal looked
        looked += 1
        return must_wait(self, event)

    monkeypatch.setattr(UnverifiedSenders, "must_wait", counted)
    link, known = joined(), PrivateDeviceKey(bytes(32))
    link.state.chat.senders.pins.known["bob"] = chain.Pin(bytes(32), 0, bytes(32))
    link.state.chat.history("room", True, 0, 500, "page")
    link.run()
    entries = [
        wire.EntryMessage(
            "room", EPOCH, seq, seq - 1, 1, "bob", links.key_id(known.public), b"p" * 16, seq, 0,
            "", b"",
        )
        for seq in range(1, 201)
    ]  # fmt: skip
    link.send_envelopes(wire.Page(link.heard(wire.History).request, "room", 0, True, entries))
    assert not link.results(), "it waits"
    asked = link.heard(wire.Devices)
    looked = 0
    link.send_envelopes(*[wire.Chain(NUMBER, "nobody", [], True)] * 1000)
    link.send_envelopes(*[wire.Error(NUMBER, 1, 0, "")] * 1000)
    assert looked == 0
    assert "page" in link.results()
    assert asked.name == "bob"
