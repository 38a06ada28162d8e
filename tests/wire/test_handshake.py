"""The handshake end to end, and everything that must not complete one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from relay.errors import LocalProtocolError
from relay.secret import Secret
from relay.wire.events import HandshakeCompleted, SecretWrapped, ServerKeyOffered
from relay.wire.frames import FrameType, frame
from relay.wire.handshake import OPENSSL, Established, Randomised
from relay.wire.identity import ServerPublicKey, fingerprint_of, parse_spki
from relay.wire.messages import ClientKey, ServerFinished, ServerHello, pack_ext
from relay.wire.phases import Phase, Side
from tests.support.pair import Pair, Peer, client, in_phase, server, server_key
from tests.support.parsing import WITHHELD, receive_every_way
from tests.wire.test_identity import WRONG, bad_ciphertexts

MODULUS_BYTES = 256


# --- one world in which every byte is fixed ---------------------------------------------------
@cache
def wrapped(secret: bytes) -> bytes:
    return ServerPublicKey.wrap(parse_spki(server_key().spki), secret)


@cache
def encapsulated(key: bytes) -> tuple[bytes, bytes]:
    return OPENSSL.encapsulate(key)


def wrap(key: ServerPublicKey, secret: bytes) -> bytes:
    """Return the same ciphertext every time, for the same key."""
    return wrapped(secret) if key.spki == server_key().spki else key.wrap(secret)


FIXED = Randomised(wrap, encapsulated)


def fixed_pair() -> Pair:
    """Both ends, without randomness: two such pairs send the same bytes."""
    return Pair(client(randomised=FIXED), server(randomised=FIXED))


@cache
def transcript() -> tuple[bytes, bytes, bytes, bytes]:
    """Return the four frames of a fixed pair."""
    pair = fixed_pair()
    f1 = pair.server.give()
    pair.client.take(f1)
    f2 = pair.client.give()
    pair.server.take(f2)
    f3 = pair.server.give()
    pair.client.take(f3)
    f4 = pair.client.give()
    pair.server.take(f4)
    assert pair.client.completed
    assert pair.server.completed
    return f1, f2, f3, f4


def frames_to_and_fro(change: Callable[[int, bytes], bytes]) -> Pair:
    """Run a fixed pair; each frame (numbered 1 to 4) passes through ``change``."""
    pair = fixed_pair()
    ends = [(pair.server, pair.client), (pair.client, pair.server)] * 2
    for number, (source, target) in enumerate(ends, 1):
        data = source.give()
        if not data:
            break
        target.take(change(number, data))
    return pair


def test_both_sides_agree() -> None:
    pair = fixed_pair()
    pair.run()
    offered, completed = pair.client.events
    assert isinstance(offered, ServerKeyOffered)
    assert offered.spki == server_key().spki
    assert completed == HandshakeCompleted(0)
    assert [type(event) for event in pair.server.events] == [SecretWrapped, HandshakeCompleted]
    binding = pair.client.connection.login_binding
    assert binding is not None
    assert binding == pair.server.connection.login_binding
    assert len(binding) == 32


def test_the_sizes_that_the_page_promises() -> None:
    f1, f2, f3, f4 = transcript()
    assert len(f1) == 4 + 44 + len(server_key().spki)
    assert len(f2) == 4 + 1250 + 8 + MODULUS_BYTES + 2 + 32
    assert len(f3) == 4 + 1153
    assert len(f4) == 4 + 32
    assert len(f1) + len(f3) <= len(f2) + 2 * len(f1), "no amplification"
    assert len(f3) < len(f2)


def test_nothing_is_the_same_in_two_handshakes() -> None:
    """With OpenSSL's own randomness and two seeds, every random field differs."""
    found: list[list[bytes]] = []
    for seed in ("one", "two"):
        peer, other = client(seed=seed), server(seed=seed)
        hello = ServerHello.parse(f1 := other.give())
        peer.take(f1)
        key = ClientKey.parse(f2 := peer.give(), MODULUS_BYTES)
        other.take(f2)
        finished = ServerFinished.parse(other.give())
        found.append([
            hello.server_random, key.client_random, key.x25519_c, key.mlkem_ek, key.rsa_ct,
            finished.x25519_s, finished.mlkem_ct, finished.server_confirm,
        ])  # fmt: skip
    assert all(a != b for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 64, 1000])
def test_any_split_gives_the_same_events(cut: int) -> None:
    whole, split = fixed_pair(), fixed_pair()
    whole.run()
    split.run(cut)
    assert split.client.events == whole.client.events
    assert split.server.events == whole.server.events


@pytest.mark.parametrize(
    "phase",
    [
        Phase.AWAIT_SERVER_HELLO,
        Phase.AWAIT_CLIENT_KEY,
        Phase.AWAIT_SERVER_FINISHED,
        Phase.AWAIT_CLIENT_FINISHED,
    ],
)
@pytest.mark.parametrize("trusting", [True, False])
def test_each_message_every_way(phase: Phase, trusting: bool) -> None:
    number = {
        Phase.AWAIT_SERVER_HELLO: 1,
        Phase.AWAIT_CLIENT_KEY: 2,
        Phase.AWAIT_SERVER_FINISHED: 3,
        Phase.AWAIT_CLIENT_FINISHED: 4,
    }[phase]

    def make() -> Peer:
        pair = fixed_pair()
        peer = pair.client if number in (1, 3) else pair.server
        pair.server.give()
        for index in range(2 - number % 2, number, 2):  # what this side received before
            if number in (1, 3):
                pair.client.take(transcript()[index - 1])
            else:
                pair.server.take(transcript()[index - 1])
        peer.give()
        assert peer.phase is phase
        peer.events.clear()
        peer.trusting = trusting
        return peer

    # A byte after ServerFinished: the client does not even begin.
    withheld = (*WITHHELD, HandshakeCompleted) if number == 3 else WITHHELD
    assert receive_every_way(make, transcript()[number - 1], withheld)


# --- every byte of every message ------------------------------------------------------------------
def masks(number: int, index: int) -> list[int]:
    """Return one flipped bit per byte; all eight in headers and in one-byte fields."""
    small = index < 12 or (number == 2 and index < 6)
    return [1 << bit for bit in range(8)] if small else [1 << index % 8]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_flipped_bit_never_establishes(number: int) -> None:
    """Neither side completes (for ClientFinished: the server), and nothing raises."""
    for index in range(len(transcript()[number - 1])):
        for mask in masks(number, index):

            def change(at: int, data: bytes, index: int = index, mask: int = mask) -> bytes:
                if at != number:
                    return data
                changed = bytearray(data)
                changed[index] ^= mask
                return bytes(changed)

            pair = frames_to_and_fro(change)
            assert not pair.server.completed, (index, mask)
            assert not pair.client.completed or number == 4, (index, mask)
            if number < 4:
                assert pair.client.give() == b"", "no application data is sent"
            # A connection that waits for missing bytes ends at its deadline.
            for peer in (pair.client, pair.server):
                peer.at(15.0)
                assert peer.phase is Phase.CLOSED or (number == 4 and peer is pair.client)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_truncated_and_extended_messages(number: int) -> None:
    """With a matching header: cut at every 16th byte and at the ends, longer by 1 and 100."""
    body = transcript()[number - 1][4:]
    kind = FrameType(number)
    cuts = {*range(1, len(body), 16), 1, len(body) - 1}
    for other in [*(body[:cut] for cut in sorted(cuts)), body + b"\0", body + bytes(100)]:

        def change(at: int, data: bytes, other: bytes = other) -> bytes:
            return frame(kind, other) if at == number else data

        pair = frames_to_and_fro(change)
        assert not pair.server.completed
        assert not pair.client.completed or number == 4
        assert (pair.client if number in (1, 3) else pair.server).phase is Phase.CLOSED


# --- ServerHello as a malicious server sends it ------------------------------------------------
def hello(**changes: object) -> bytes:
    """Return a legal ServerHello with some fields changed."""
    right = ServerHello.parse(transcript()[0])
    return frame(FrameType.SERVER_HELLO, right._replace(**changes).body())  # type: ignore[arg-type]


def offered_by(first: bytes) -> Peer:
    peer = client()
    peer.trusting = False
    peer.take(first)
    return peer


@pytest.mark.parametrize(("low", "high"), [(1, 1), (0, 1), (1, 2), (0, 255)])
def test_versions_in_common(low: int, high: int) -> None:
    peer = offered_by(hello(ver_min=low, ver_max=high))
    assert peer.phase is Phase.PIN_DECISION
    peer.connection.accept_server_key(0.0)
    assert ClientKey.parse(peer.give(), MODULUS_BYTES).version == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"ver_min": 2, "ver_max": 1},
        {"ver_min": 2, "ver_max": 2},
        {"ver_min": 0, "ver_max": 0},
        {"ver_min": 2, "ver_max": 255},
        {"suite": 0},
        {"suite": 2},
        {"suite": 255},
        {"pow_bits": 17},
        {"pow_bits": 255},
    ],
)
def test_a_hello_that_the_client_leaves(changes: dict[str, int]) -> None:
    peer = offered_by(hello(**changes))
    assert peer.closed.code is None
    assert peer.give() == b""
    assert not any(isinstance(event, ServerKeyOffered) for event in peer.events)


@pytest.mark.parametrize("case", [c for c in WRONG if len(WRONG[c]) < 4000])
def test_a_key_that_nobody_is_asked_about(case: str) -> None:
    peer = offered_by(hello(spki=WRONG[case]))
    assert peer.closed.code is None
    assert peer.give() == b""
    assert not any(isinstance(event, ServerKeyOffered) for event in peer.events)


def test_no_downgrade_below_a_version_spoken_before() -> None:
    peer = client(version_min=2)
    peer.take(transcript()[0])
    assert "higher version" in peer.closed.detail


def test_an_extension_is_ignored_but_hashed() -> None:
    future = b"\xc8\x0bof a future"
    peer = offered_by(hello(ext=future))
    assert peer.phase is Phase.PIN_DECISION

    def change(at: int, data: bytes) -> bytes:
        return hello(ext=future) if at == 1 else data

    pair = frames_to_and_fro(change)
    assert not pair.client.completed
    assert "does not hold the key" in pair.client.closed.detail


def test_the_id_that_a_server_claims_is_passed_on() -> None:
    claimed = b"i" * 32
    peer = offered_by(hello(ext=b"\xc8\x00" + pack_ext(claimed, bytes(32))))
    (offered,) = peer.events
    assert isinstance(offered, ServerKeyOffered)
    assert offered.server_id == fingerprint_of(claimed)
    assert pack_ext(claimed, claimed) == b"", "its first key is the claim"


def test_an_id_that_was_put_in_on_the_way_is_never_believed() -> None:
    """The hello is confirmed by the holder of the key: nobody else can claim the server's id."""
    for ext in (pack_ext(b"i" * 32, bytes(32)), b"\xc8\x00"):
        pair = frames_to_and_fro(lambda at, data, ext=ext: hello(ext=ext) if at == 1 else data)  # type: ignore[misc]
        assert not pair.client.completed
        assert "does not hold the key" in pair.client.closed.detail


@pytest.mark.parametrize(
    "ext",
    [
        b"\x01",
        b"\x01\x20",
        b"\x01\x1f" + bytes(31),
        b"\x01\x21" + bytes(33),
        b"\x01\x20" + bytes(31),
        (b"\x01\x20" + bytes(32)) * 2,
        b"\xc8\x05abcd",
    ],
)
def test_a_malformed_extension_ends_it(ext: bytes) -> None:
    assert "malformed" in offered_by(hello(ext=ext)).closed.detail


def test_the_client_is_silent_until_its_owner_has_decided() -> None:
    peer = offered_by(transcript()[0])
    assert peer.give() == b""
    peer.connection.abort("not that key")
    peer.act()
    assert peer.give() == b""
    assert peer.closed.detail == "not that key"


# --- a man in the middle -----------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {"ver_max": 2},
        {"ver_min": 0},
        {"pow_bits": 1},
        {"server_random": bytes(32)},
    ],
)
def test_a_hello_that_was_changed_on_its_way(changes: dict[str, int]) -> None:
    pair = frames_to_and_fro(lambda at, data: hello(**changes) if at == 1 else data)
    assert not pair.client.completed
    assert not pair.server.completed


def test_a_server_that_offers_a_key_it_does_not_hold() -> None:
    """It can do everything but unwrap the secret."""
    peer, other = client(), server()
    other.trusting = False
    peer.take(other.give())
    other.take(peer.give())
    other.connection.provide_secret(bytes(32), 0.0)
    peer.take(other.give())
    assert "does not hold the key" in peer.closed.detail
    assert not peer.completed
    assert peer.give() == b""


def finished(**changes: object) -> bytes:
    right = ServerFinished.parse(transcript()[2])
    changed = right._replace(**changes)  # type: ignore[arg-type]
    return frame(FrameType.SERVER_FINISHED, changed.body())


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": 1},
        {"mode": 2},
        {"mode": 255},
        {"server_confirm": bytes(32)},
        {"server_confirm": b"\xff" * 32},
        {"mlkem_ct": bytes(1088)},
        {"mlkem_ct": b"\xff" * 1088},
    ],
)
def test_a_server_finished_that_the_client_leaves(changes: dict[str, object]) -> None:
    pair = frames_to_and_fro(lambda at, data: finished(**changes) if at == 3 else data)
    assert not pair.client.completed
    assert pair.client.closed.code is None
    assert ("mode" in pair.client.closed.detail) == ("mode" in changes)
    assert pair.client.give() == b""


def test_confirmations_are_not_interchangeable() -> None:
    """Reflected, or from another connection of the same two."""
    confirm = ServerFinished.parse(transcript()[2]).server_confirm
    reflected = frame(FrameType.CLIENT_FINISHED, confirm)
    pair = frames_to_and_fro(lambda at, data: reflected if at == 4 else data)
    assert "confirmation" in pair.server.closed.detail

    another, rightful = in_phase(Phase.AWAIT_CLIENT_FINISHED, Side.SERVER)
    assert rightful != transcript()[3]
    another.take(transcript()[3])
    assert not another.completed
    assert another.give() == b""


def test_a_recorded_session_is_worthless() -> None:
    """Frames 2 and 4 and the records after them, replayed to the same server."""
    pair = fixed_pair()
    f1 = pair.server.give()
    pair.client.take(f1)
    f2 = pair.client.give()
    pair.server.take(f2)
    pair.client.take(pair.server.give())
    f4 = pair.client.give()
    record = pair.client.connection.seal(b"pay the attacker", 0.0)

    victim = server(seed="a later connection")
    victim.give()
    victim.take(f2)
    victim.give()
    victim.take(f4 + record)
    assert not victim.completed
    assert not victim.received
    assert victim.closed.code is None


# --- ClientKey as a malicious client sends it --------------------------------------------------
def key(**changes: object) -> bytes:
    right = ClientKey.parse(transcript()[1], MODULUS_BYTES)
    return frame(FrameType.CLIENT_KEY, right._replace(**changes).body())  # type: ignore[arg-type]


def server_after(second: bytes, pow_bits: int = 0) -> Peer:
    peer = server(randomised=FIXED, pow_bits=pow_bits)
    peer.give()
    peer.take(second)
    return peer


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": 2},
        {"version": 255},
        {"suite": 0},
        {"suite": 2},
        {"binder": b"\1" * 32},
        {"rsa_ct": bytes(MODULUS_BYTES - 1)},
        {"rsa_ct": bytes(MODULUS_BYTES + 1)},
        {"rsa_ct": b""},
        {"ticket": bytes(257)},
        {"mlkem_ek": bytes(1183)},
    ],
)
def test_a_client_key_that_costs_no_rsa(changes: dict[str, object]) -> None:
    peer = server_after(key(**changes))
    assert peer.closed.code is None
    assert peer.unwrapped == 0
    assert peer.give() == b""


def test_a_ticket_that_cannot_be_opened_counts_as_none() -> None:
    """Mode 0, and the binder is not checked. The transcript covers both."""
    for binder in (bytes(32), b"\xff" * 32):
        peer = server_after(key(ticket=b"opaque", binder=binder))
        assert peer.phase is Phase.AWAIT_CLIENT_FINISHED
        assert ServerFinished.parse(peer.give()).mode == 0


@pytest.mark.parametrize("case", [c for c, v in bad_ciphertexts().items() if len(v) == 256])
def test_a_bad_ciphertext_is_answered_like_a_good_one(case: str) -> None:
    """A well-formed ServerFinished that proves nothing, and failure only at the confirmation."""
    bad = bad_ciphertexts()[case]
    pair = frames_to_and_fro(lambda at, data: key(rsa_ct=bad) if at == 2 else data)
    assert pair.server.unwrapped == 1
    assert pair.server.phase is Phase.AWAIT_CLIENT_FINISHED
    assert [type(event) for event in pair.server.events] == [SecretWrapped]
    assert not pair.client.completed
    assert "does not hold the key" in pair.client.closed.detail
    good = ServerFinished.parse(transcript()[2])
    answer = server_after(key(rsa_ct=bad)).give()
    assert len(answer) == len(transcript()[2])
    assert ServerFinished.parse(answer)._replace(server_confirm=b"") == good._replace(
        server_confirm=b"", mlkem_ct=ServerFinished.parse(answer).mlkem_ct
    )


P = 2**255 - 19
SMALL_ORDER = {
    "0": 0,
    "1": 1,
    "order 8": 0xB8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    "order 8, the other": 0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    "p - 1": P - 1,
    "p": P,
    "p + 1": P + 1,
}


@pytest.mark.parametrize("top_bit", [0, 1 << 255])
@pytest.mark.parametrize("point", SMALL_ORDER)
def test_x25519_points_of_small_order(point: str, top_bit: int) -> None:
    public = (SMALL_ORDER[point] | top_bit).to_bytes(32, "little")
    peer = server_after(key(x25519_c=public))
    assert "small order" in peer.closed.detail
    assert peer.give() == b""
    pair = frames_to_and_fro(lambda at, data: finished(x25519_s=public) if at == 3 else data)
    assert "small order" in pair.client.closed.detail
    assert not pair.client.completed


def test_x25519_encodings_that_are_not_canonical_are_taken() -> None:
    """RFC 7748 section 5: the top bit is masked, and values from p on are reduced."""
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    for other in (
        public[:31] + bytes((public[31] | 0x80,)),
        (P + 9).to_bytes(32, "little"),
        (P + 18).to_bytes(32, "little"),
    ):
        assert server_after(key(x25519_c=other)).phase is Phase.AWAIT_CLIENT_FINISHED


def test_an_mlkem_key_that_is_none() -> None:
    """FIPS 203 section 7.2: every coefficient below 3329."""
    right = ClientKey.parse(transcript()[1], MODULUS_BYTES).mlkem_ek
    for bad in (
        b"\xff" * 1184,
        b"\x01\x0d" + right[2:],
        right[:1149] + b"\xff\xff\xff" + right[1152:],
    ):
        peer = server_after(key(mlkem_ek=bad))
        assert "ML-KEM" in peer.closed.detail
        assert peer.give() == b""


def test_an_mlkem_key_of_somebody_else() -> None:
    other = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
    pair = frames_to_and_fro(lambda at, data: key(mlkem_ek=other) if at == 2 else data)
    assert not pair.client.completed
    assert pair.server.phase is Phase.AWAIT_CLIENT_FINISHED


# --- bytes at the wrong time -------------------------------------------------------------------
def test_bytes_behind_client_key_cost_no_rsa() -> None:
    for extra in (b"\x10", transcript()[1], transcript()[3]):
        peer = server_after(transcript()[1] + extra)
        assert peer.unwrapped == 0
        assert peer.closed.code is None
        assert peer.give() == b""


def test_bytes_while_the_key_agent_works() -> None:
    peer, _ = in_phase(Phase.UNWRAPPING, Side.SERVER)
    peer.take(b"\x04")
    assert peer.phase is Phase.CLOSED
    peer.connection.provide_secret(bytes(32), 0.0)  # the answer comes too late, without effect
    peer.act()
    assert peer.give() == b""
    assert peer.closed.code is None


def test_a_client_that_answers_before_it_was_asked() -> None:
    """ClientKey guessed before ServerHello is read: it is processed, and cannot be valid."""
    peer = server(seed="another random")
    peer.take(transcript()[1])
    peer.give()
    peer.take(transcript()[3])
    assert not peer.completed


def test_bytes_behind_server_hello() -> None:
    for extra in (b"\x03", transcript()[2]):
        peer = client()
        peer.take(transcript()[0] + extra)
        assert peer.closed.code is None
        assert peer.give() == b""
        assert not any(isinstance(event, ServerKeyOffered) for event in peer.events)


def test_bytes_behind_server_finished() -> None:
    pair = frames_to_and_fro(lambda at, data: data + b"\x10" if at == 3 else data)
    assert not pair.client.completed
    assert "behind ServerFinished" in pair.client.closed.detail
    assert pair.client.give() == b""


def test_records_in_the_segment_of_client_finished() -> None:
    pair = fixed_pair()
    pair.client.take(pair.server.give())
    pair.server.take(pair.client.give())
    pair.client.take(pair.server.give())
    pair.client.connection.send(b"first", 0.0)
    pair.client.connection.send(b"second", 0.0)
    pair.server.take(pair.client.give())
    assert pair.server.received == [b"first", b"second"]


def test_records_behind_a_wrong_client_finished_are_never_opened() -> None:
    pair = fixed_pair()
    pair.client.take(pair.server.give())
    pair.server.take(pair.client.give())
    pair.client.take(pair.server.give())
    pair.client.connection.send(b"first", 0.0)
    data = bytearray(pair.client.give())
    data[4] ^= 1
    pair.server.take(bytes(data))
    assert not hasattr(pair.server.connection, "_receive"), "no cipher was made"
    assert not pair.server.received
    assert not pair.server.completed


def test_a_record_before_client_finished() -> None:
    peer, rightful = in_phase(Phase.AWAIT_CLIENT_FINISHED, Side.SERVER)
    peer.take(frame(FrameType.RECORD, bytes(80)) + rightful)
    assert not peer.completed
    assert peer.closed.code is None


# --- proof of work -----------------------------------------------------------------------------
def test_work_is_asked_and_done() -> None:
    pair = Pair(client(), server(pow_bits=8))
    pair.run()
    assert pair.client.completed
    assert pair.server.completed


def test_wrong_work_costs_no_rsa() -> None:
    """A wrong nonce, and the right one of another connection."""
    peer, other = client(), server(pow_bits=16, seed="other")
    peer.take(other.give())
    solved = peer.give()
    for target, second in (
        (server(pow_bits=16), solved),
        (other, key(pow_nonce=bytes(8))),
    ):
        target.give()
        target.take(second)
        assert "proof of work" in target.closed.detail
        assert target.unwrapped == 0


@pytest.mark.parametrize("bits", [-1, 17, 255])
def test_a_server_does_not_ask_for_too_much(bits: int) -> None:
    with pytest.raises(LocalProtocolError):
        server(pow_bits=bits)


# --- our own mistakes --------------------------------------------------------------------------
def test_calls_out_of_turn_are_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        client().connection.accept_server_key(0.0)
    with pytest.raises(LocalProtocolError):
        server().connection.provide_secret(bytes(32), 0.0)
    with pytest.raises(LocalProtocolError):
        server().connection.accept_server_key(0.0)
    peer, _ = in_phase(Phase.UNWRAPPING, Side.SERVER)
    with pytest.raises(LocalProtocolError):
        peer.connection.provide_secret(bytes(31), 0.0)


def test_secrets_are_dropped_after_the_handshake_and_shown_nowhere() -> None:
    pair = fixed_pair()
    pair.run()
    assert pair.client.connection._handshake is None
    assert pair.server.connection._handshake is None
    assert (
        "secret"
        not in repr(
            Established(0, None, b"secret", Secret(b"secret"), False)  # type: ignore[arg-type]
        ).lower()
    )
