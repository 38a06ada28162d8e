"""Verification of senders' keys: honest chains cause no warning, a malicious server does."""

from __future__ import annotations

import pytest

from relay.chat.accounts import chain, links
from relay.chat.accounts.chain import Pin
from relay.chat.accounts.links import Kind
from relay.client.devices.device_queries import AGAIN_S, ANSWER_S, NUMBER
from relay.client.devices.pending_senders import VERIFY_S_MAX
from relay.client.devices.senders import Senders
from relay.client.devices.unverified import UnverifiedSenders
from relay.client.errors import DeviceChainError
from relay.client.events import Message
from relay.limits import RETRY_MS_MAX
from relay.wire.codes import ErrorCode
from relay.wire.device_keys import PrivateDeviceKey, verify
from relay.wire.envelopes import Account, Chain, Devices, Error
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


def entry(name: str, key_id: bytes) -> Message:
    return Message("lobby", b"epoch..8", 1, 0, 1, name, key_id, b"", 1, 0, "text/plain", b"hi")


def busy(wait_ms: int) -> Error:
    return Error(NUMBER, ErrorCode.BUSY, wait_ms, "later")


class Reader:
    """A reading client, and the answers of its server."""

    def __init__(self, pins: dict[str, Pin] | None = None, own: list[bytes] | None = None) -> None:
        self.pins = {} if pins is None else pins
        self.unverified = UnverifiedSenders()
        self.senders = Senders(self.unverified)
        self.senders.begin(SERVER, "reader", bytes(32), self.pins, own, [])

    def again(self) -> None:
        """Lose the connection, and connect again."""
        self.senders.offline()
        self.senders.begin(SERVER, "reader", bytes(32), self.pins, None, [])

    def asked(self) -> list[str]:
        return [one.name for one in self.senders.requests(0.0) if isinstance(one, Devices)]

    def waits(self, device: PrivateDeviceKey) -> bool:
        return self.unverified.must_wait(entry("alice", links.key_id(device.public)))

    def doubt(self, device: PrivateDeviceKey, *, see: bool = False) -> str:
        """Return how a message of a device of alice is marked."""
        if see:
            self.senders.look("lobby", "alice", links.key_id(device.public), now=0.0)
        return self.unverified.marked(entry("alice", links.key_id(device.public))).doubt

    def sees(
        self, device: PrivateDeviceKey, packed: list[bytes] | None, name: str = "alice"
    ) -> list[str]:
        """Deliver a message; answer the client's request, if there is one. Return warnings."""
        pair = (name, links.key_id(device.public))
        if pair not in self.senders.known:
            self.senders.look("lobby", *pair, now=0.0)
        for question in self.senders.requests(0.0):
            assert question == Devices(NUMBER, name, 0)
            if packed is None:
                self.senders.refused("no", 0.0)
            else:
                self.senders.received(Chain(NUMBER, name, packed, True), 0.0)
        while self.senders.deadline == 0.0:  # a long chain takes several turns
            self.senders.overdue(0.0)
        warnings, self.senders.warnings = self.senders.warnings, []
        assert all((one.room, one.name) == ("lobby", name) for one in warnings)
        return [one.detail for one in warnings]


def test_a_first_contact_is_pinned() -> None:
    reader = Reader()
    assert reader.sees(A, TWO) == []
    assert reader.pins == {"alice": pin_of(TWO)}
    assert reader.senders.pins.seen == {"alice": pin_of(TWO)}
    assert reader.sees(A, None) == [], "and is not requested again"


def test_a_new_device_that_the_chain_proves_is_silent() -> None:
    reader = Reader({"alice": pin_of(ONE)})
    assert reader.sees(B, TWO) == []
    assert reader.sees(A, THREE) == [], "a removed device's old messages stay valid"
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
        (A, None, "does not send"),
    ],
)
def test_what_a_malicious_server_tries_is_loud(
    device: PrivateDeviceKey, packed: list[bytes] | None, output: str
) -> None:
    """A fork, another root, a rollback, a forged link, another account's chain, an unknown key."""
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
    assert senders.pins.seen == {"alice": pin_of(THREE)}
    assert not senders.warnings


def test_what_the_server_has_lost_is_given_back() -> None:
    """Restored from a backup: the account's own device sends the missing links."""
    own = list(THREE)
    senders = Senders()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {"alice": pin_of(THREE)}, own, [])
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


def test_nothing_is_given_back_to_a_list_that_was_forged() -> None:
    senders = Senders()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {"alice": pin_of(THREE)}, list(THREE), [])
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 0)]
    senders.received(Chain(NUMBER, "alice", FORK, True), 0.0)
    assert list(senders.requests(0.0)) == []
    assert len(senders.warnings) == 1


def test_unasked_answers_mean_nothing() -> None:
    senders = Reader().senders
    senders.received(Chain(NUMBER, "alice", ANEW, True), 0.0)
    senders.done(0.0)
    senders.refused("", 0.0)
    assert not senders.pins.seen
    assert not senders.warnings


def test_what_answers_another_question_is_no_answer() -> None:
    """The verification is not over: in the end there is a warning."""
    senders = Reader().senders
    senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 0)]
    senders.done(0.0)
    senders.overdue(ANSWER_S)
    assert len(senders.warnings) == 1


def test_what_a_server_hides_stays_known() -> None:
    """After the warning too: a fork of that chain is not accepted."""
    reader = Reader({"alice": pin_of(THREE)})
    assert "hides" in reader.sees(A, ONE)[0]
    assert reader.pins["alice"] == pin_of(THREE)
    assert "contradicts" in reader.sees(C, longer(FORK, Kind.ADD, D, C, D))[0]


@pytest.mark.parametrize(
    ("packed", "output"),
    [(TWO, "hides"), (longer(TWO, Kind.ADD, C, A, C), "contradicts"), (ANEW, "begun anew")],
)
def test_no_link_is_signed_that_would_fork_ones_own_chain(packed: list[bytes], output: str) -> None:
    """Approving a device after a removal that the server hides would undo the removal."""
    senders = Senders()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {"alice": pin_of(THREE)}, THREE, [])
    with pytest.raises(DeviceChainError, match=output):
        senders.hold(packed, chain.read(packed, verify))
    senders.hold(THREE, chain.read(THREE, verify))
    four = longer(THREE, Kind.ADD, C, B, C)
    senders.hold(four, chain.read(four, verify))
    assert senders.own.unsaved == four
    assert not senders.warnings


def test_a_list_that_was_asked_for_is_held_against_what_was_seen() -> None:
    reader = Reader()
    for packed, warnings in ((TWO, 0), (THREE, 0), (TWO, 1), (ANEW, 2), (ANEW, 2)):
        reader.senders.hold(packed, chain.read(packed, verify))
        assert len(reader.senders.warnings) == warnings
    assert reader.senders.pins.seen == {"alice": pin_of(THREE)}, "a contradiction is not pinned"


def test_ones_own_links_are_kept_as_they_are_made() -> None:
    senders = Senders()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {}, list(TWO), [])
    senders.own.extended(THREE[2])
    assert senders.own.unsaved == THREE
    offer = longer(THREE, Kind.ADD, C, B, C)[-1][: -links.SIGNATURE_BYTES]
    senders.own.extended(offer)
    senders.own.extended(TWO[1])
    assert senders.own.unsaved == THREE


def test_who_begins_an_account_anew_knows_its_chain() -> None:
    """After an operator's reset: the stored chain is of the account before."""
    anew = pin_of(ANEW)
    senders = Senders()
    pins = {"alice": pin_of(TWO)}
    senders.begin(SERVER, "alice", anew.root, pins, list(TWO), list(ANEW))
    assert senders.take_seen() == ({"alice": anew}, ANEW)
    assert list(senders.requests(0.0)) == []
    senders.hold(ANEW, chain.read(ANEW, verify))
    assert not senders.warnings
    other = Senders()  # another device, which has not: it asks, and is warned
    other.begin(SERVER, "alice", anew.root, {"alice": pin_of(ONE)}, list(ONE), [])
    assert list(other.requests(0.0)) == [Devices(NUMBER, "alice", 0)]


def test_a_later_connection_forgets_no_link() -> None:
    senders = Senders()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {}, [], list(ONE))
    senders.hold(TWO, chain.read(TWO, verify))
    senders.take_seen()
    senders.offline()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {}, [], list(ONE))
    assert senders.own.unsaved is None
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 0)]


def test_names_that_a_server_invents_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And known names stay known."""
    monkeypatch.setattr("relay.client.devices.pins.PINS_MAX", 6)
    reader = Reader({"alice": pin_of(ONE)})
    names = list(map("name-{}".format, range(9)))
    for name in names:
        assert reader.sees(A, [root(name=name)], name) == []
    assert list(reader.senders.pins.seen) == names[:5]
    assert list(reader.pins) == ["alice", *names[:5]]
    assert len(caplog.records) == 1
    assert reader.sees(B, TWO) == []
    assert reader.senders.pins.seen["alice"] == pin_of(TWO)


def test_what_a_server_changes_again_and_again_is_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the file; each change counts while the program runs."""
    monkeypatch.setattr("relay.client.devices.pins.CHANGES_MAX", 3)
    reader, packed = Reader({"alice": pin_of(ONE)}), ONE
    for _ in range(2):
        reader.senders.begin(SERVER, "reader", bytes(32), reader.pins, None, [])
        caplog.clear()
        written = 0
        for _ in range(8):
            subject = key(f"device {len(packed)}")
            packed = longer(packed, Kind.ADD, subject, A, subject)
            reader.senders.known.clear()
            assert reader.sees(A, packed) == []
            assert reader.pins == {"alice": pin_of(packed)}
            written += reader.senders.take_seen() is not None
        assert written == 3
        assert len(caplog.records) == 1


def test_what_contradicts_is_not_pinned_and_stays_doubtful() -> None:
    """On the next connection, too, until a chain comes that extends the known one."""
    reader = Reader({"alice": pin_of(TWO)})
    assert len(reader.sees(D, ANEW)) == 1
    assert reader.pins == {"alice": pin_of(TWO)}
    assert reader.doubt(D) == reader.doubt(A, see=True) != ""
    assert reader.sees(D, ANEW) == [], "warned once"
    reader.again()
    assert "alice" in reader.asked()
    assert reader.doubt(D) != ""
    reader.senders.received(Chain(NUMBER, "alice", THREE, True), 0.0)
    assert reader.doubt(A) == ""
    assert "not one of their devices" in reader.doubt(D)


def test_all_of_a_sender_is_doubtful_also_what_was_proved_before() -> None:
    reader = Reader()
    assert reader.sees(A, TWO) == []
    assert reader.doubt(A) == ""
    assert "contradicts" in reader.sees(C, FORK)[0]
    assert "contradicts" in reader.doubt(A)


@pytest.mark.parametrize("packed", [FORK, ANEW, ONE], ids=["fork", "anew", "older"])
def test_a_person_accepts_what_contradicts(packed: list[bytes]) -> None:
    """Exactly that one: what the server shows next has to extend it."""
    reader = Reader({"alice": pin_of(TWO)})
    device = {id(FORK): C, id(ANEW): D}.get(id(packed), A)
    assert reader.sees(device, packed) != []
    found = reader.senders.pins.contradiction(chain.read(packed, verify))
    assert found is not None
    assert found[1] == pin_of(TWO)
    reader.senders.accept("alice", pin_of(packed))
    reader.senders.hold(packed, chain.read(packed, verify))
    assert reader.doubt(device) == ""
    assert reader.senders.pins.seen == {"alice": pin_of(packed)}
    if packed != ONE:
        assert "anew" in reader.sees(B, TWO)[0] or packed == FORK


def test_a_forged_list_of_ones_own_devices_cannot_be_accepted() -> None:
    senders = Senders()
    senders.begin(SERVER, "alice", pin_of(ONE).root, {"alice": pin_of(TWO)}, list(TWO), [])
    with pytest.raises(DeviceChainError):
        senders.accept("alice", pin_of(FORK))
    senders.accept("alice", pin_of(ANEW))
    senders.hold(ANEW, chain.read(ANEW, verify))
    assert senders.own.unsaved == ANEW


def test_a_lost_connection_answers_no_question() -> None:
    """A server that closes instead of answering is asked on the next connection."""
    reader = Reader({"alice": pin_of(TWO)})
    reader.senders.look("lobby", "alice", links.key_id(D.public), now=0.0)
    assert reader.asked() == ["alice"]
    assert reader.waits(D)
    reader.senders.offline()
    assert not reader.waits(D)
    assert "lost" in reader.doubt(D)
    reader.again()
    assert reader.waits(D), "entries not taken by then are not marked for ever"
    assert reader.asked() == ["alice"]


def test_a_server_without_time_says_nothing_about_anybody() -> None:
    """It is asked again at the given time, and nothing else until then. If that lasts, a warning
    comes.
    """
    senders = Reader().senders
    for name in ("alice", "bob"):
        senders.look("lobby", name, links.key_id(A.public), now=0.0)
    query = Devices(NUMBER, "alice", 0)
    now = 0.0
    for wait_ms in (4000, 2**32 - 1):
        assert list(senders.requests(now)) == [query]
        assert senders.retry(busy(wait_ms), now)
        assert list(senders.requests(now)) == []
        assert senders.deadline is not None
        assert now < senders.deadline <= now + RETRY_MS_MAX / 1000
        now = senders.deadline
        senders.overdue(now)
        assert not senders.warnings
    assert list(senders.requests(now)) == [query]
    assert not senders.retry(busy(RETRY_MS_MAX), now)
    senders.refused("BUSY", now)
    assert len(senders.warnings) == 1
    assert list(senders.requests(now)) == [Devices(NUMBER, "bob", 0)]
    assert senders.retry(busy(RETRY_MS_MAX), now), "a timeout of its own"


def test_one_whose_devices_cannot_be_had_now_holds_nobody_up() -> None:
    """Others are verified meanwhile; its messages are delivered, marked, and verified later."""
    reader = Reader({name: pin_of(TWO) for name in ("alice", "bob")})
    senders, queries = reader.senders, {n: Devices(NUMBER, n, 0) for n in ("alice", "bob")}
    unavailable = Error(NUMBER, int(ErrorCode.UNAVAILABLE), 4000, "")
    for name in queries:
        senders.look("lobby", name, links.key_id(A.public), now=0.0)
    assert list(senders.requests(0.0)) == [queries["alice"]]
    assert senders.retry(unavailable, 0.0)
    assert list(senders.requests(0.0)) == [queries["bob"]]
    senders.overdue(5.0)
    assert list(senders.requests(5.0)) == [], "one at a time"
    senders.refused("no", 5.0)
    assert list(senders.requests(5.0)) == [queries["alice"]]
    assert senders.retry(unavailable, 5.0)
    senders.overdue(9.0)
    assert list(senders.requests(9.0)) == [queries["alice"]]
    assert reader.waits(A)
    assert not senders.retry(unavailable, 9.0), "as long as for a caller without a timeout"
    senders.refused("not now", 9.0, for_now=True)
    assert not reader.waits(A)
    assert "not now" in reader.doubt(A)
    assert senders.deadline == 9.0 + AGAIN_S
    senders.overdue(9.0 + AGAIN_S)
    assert list(senders.requests(9.0 + AGAIN_S)) == [queries["alice"]]
    senders.received(Chain(NUMBER, "alice", TWO, True), 9.0 + AGAIN_S)
    assert reader.doubt(A) == ""
    assert senders.deadline is None


def test_nothing_is_held_for_longer_than_an_answer_may_take() -> None:
    """Whatever the server answers meanwhile, and on each connection anew."""
    reader = Reader({"alice": pin_of(TWO)})
    senders = reader.senders
    senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert reader.asked() == ["alice"]
    assert senders.retry(busy(20_000), 0.0)
    senders.overdue(20.0)
    assert list(senders.requests(20.0))
    assert senders.retry(busy(20_000), 20.0)
    assert reader.waits(A)
    assert senders.deadline == VERIFY_S_MAX
    senders.overdue(VERIFY_S_MAX)
    assert not reader.waits(A)
    assert "not sent the list of their devices yet" in reader.doubt(A)
    assert [warning.name for warning in senders.warnings] == ["alice"]
    senders.overdue(40.0)
    assert list(senders.requests(40.0)), "it is requested all the same"
    senders.received(Chain(NUMBER, "alice", TWO, True), 40.0)
    assert reader.doubt(A) == ""
    senders.look("lobby", "alice", links.key_id(D.public), now=50.0)
    senders.offline()
    assert senders.deadline is None
    reader.again()
    assert list(senders.requests(1000.0))
    assert reader.waits(D)
    senders.overdue(1000.0)
    assert reader.waits(D), "its time begins with the request"
    senders.overdue(1000.0 + VERIFY_S_MAX)
    assert not reader.waits(D)


def test_a_damaged_file_of_ones_own_links_holds_nothing_up() -> None:
    senders = Senders(unverified := UnverifiedSenders())
    damaged = [*ONE, TWO[1][:-1] + b"\0"]
    senders.begin(SERVER, "alice", pin_of(ONE).root, {"alice": pin_of(ONE)}, damaged, [])
    senders.look("lobby", "alice", links.key_id(A.public), now=0.0)
    assert list(senders.requests(0.0)) == [Devices(NUMBER, "alice", 0)]
    senders.received(Chain(NUMBER, "alice", ONE, True), 0.0)
    assert not unverified.holding
    assert list(senders.requests(0.0)) == [], "nothing false is sent to the server"
    assert senders.own.unsaved == ONE


def test_a_message_without_a_key_is_doubtful_once_its_sender_had_one() -> None:
    reader = Reader({"alice": pin_of(TWO)})
    reader.senders.look("lobby", "alice", b"", now=0.0)
    assert reader.asked() == []
    assert "no device" in reader.unverified.marked(entry("alice", b"")).doubt


def test_senders_that_a_server_invents_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders that cannot be verified any more are doubtful."""
    monkeypatch.setattr("relay.client.devices.senders.SENDERS_MAX", 3)
    names = list(map("name-{}".format, range(5)))
    reader = Reader({name: pin_of(TWO) for name in names})
    for name in names:
        reader.senders.look("lobby", name, links.key_id(D.public), now=0.0)
    assert reader.unverified.must_wait(entry(names[2], links.key_id(D.public)))
    assert "too many" in reader.unverified.marked(entry(names[4], links.key_id(D.public))).doubt


def test_invented_senders_hide_no_forged_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender with a proved chain is marked doubtful, although there is no place to record why."""
    monkeypatch.setattr("relay.client.devices.senders.SENDERS_MAX", 3)
    reader = Reader()
    assert reader.sees(A, TWO) == []
    for number in range(3):
        reader.senders.look("lobby", f"name-{number}", links.key_id(D.public), now=0.0)
    assert reader.doubt(A) == ""
    reader.senders.hold(FORK, chain.read(FORK, verify))
    assert "too many" in reader.doubt(A, see=True)
