"""Targets on the wire: frames, handshakes, records, envelopes, and the two protocols inside."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from relay import limits
from relay.bus import messages as bus
from relay.bus import packing as bus_bytes
from relay.codec import Unknown
from relay.errors import EnvelopeError, RemoteProtocolError
from relay.server.agent import protocol as agent
from relay.wire.cipher import SendCipher, new_aead, padded_size
from relay.wire.frames import HEADER, FrameReader, FrameType, header
from relay.wire.packing import pack, unpack_client, unpack_server
from relay.wire.phases import LEGAL, Phase, Side
from tests.bus.test_messages import SAMPLES as BUS_SAMPLES
from tests.fuzz.inputs import (
    Edit,
    contents,
    corpus_of,
    cuts,
    edited,
    edits,
    pieces,
)
from tests.fuzz.target import Target
from tests.support.pair import Peer, established, in_phase
from tests.support.parsing import read_frames
from tests.vectors.generate import HERE as VECTORS
from tests.vectors.generate import TO_CLIENT, TO_SERVER

Unpack = Callable[[bytes], list[Any]]
PENDING_MAX: Final = HEADER + limits.RECORD_BODY_BYTES_MAX
SAMPLE_BYTES_MAX: Final = 4096
"""Larger ones only make it slow: the bounds are tested by the parsers' own tests."""
ENVELOPES_PEAK_BYTES: Final = 12 * 1024 * 1024
"""Memory for unpacking one record: 64 KiB of the smallest values, and arrays that claim much."""


# --- frames ---------------------------------------------------------------------------------------
def _frames() -> list[bytes]:
    return [
        *(header(kind, n) + bytes(n) for kind in FrameType for n in (1, 17, 100)),
        header(FrameType.RECORD, limits.RECORD_BODY_BYTES_MAX)
        + bytes(limits.RECORD_BODY_BYTES_MAX),
        header(FrameType.CLIENT_KEY, 4096) + bytes(4096),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xc8",
        *corpus_of("frames"),
    ]


class Stream(NamedTuple):
    """A stream of frames, its cuts, and which types are legal."""

    allowed: tuple[FrameType, ...]
    data: bytes
    sizes: list[int]


def _check_frames(stream: Stream) -> None:
    """Only RemoteProtocolError; the splits do not matter; at most one frame is buffered."""
    whole = read_frames(stream.allowed, [stream.data])
    assert read_frames(stream.allowed, pieces(stream.data, stream.sizes)) == whole
    reader = FrameReader(stream.allowed)
    for piece in pieces(stream.data, stream.sizes):
        try:
            reader.feed(piece)
            while reader.next() is not None:
                pass
        except RemoteProtocolError:
            return
        assert reader.pending < PENDING_MAX


frames = Target(
    "frames",
    st.builds(
        Stream,
        st.sampled_from(list(LEGAL.values())),
        st.lists(
            st.builds(edited, st.sampled_from(_frames()), edits) | st.binary(), max_size=4
        ).map(b"".join),
        cuts,
    ),
    _check_frames,
    of_bytes=lambda data: Stream(
        list(LEGAL.values())[len(data) % len(LEGAL)], data, [1, 3, 4, 1000, 17] * (len(data) % 3)
    ),
    seeds=_frames(),
    quick=8000,
)


# --- handshakes -----------------------------------------------------------------------------------
class Answer(NamedTuple):
    """The peer's frame of one phase: the valid one, changed."""

    phase: Phase
    changes: list[Edit]
    sizes: list[int]


def _check_handshake(side: Side) -> Callable[[Answer], None]:
    def check(answer: Answer) -> None:
        """No exception; a changed answer never opens a connection; deadlines end what is left."""
        peer, rightful = in_phase(answer.phase, side)
        data = edited(rightful, answer.changes)
        before = peer.completed
        sent = 0
        for piece in pieces(data, answer.sizes):
            peer.take(piece)
            sent += len(peer.give())
        assert sent <= 2 * 4096 + 1024, "no amplification"
        if peer.completed and not before:
            assert data.startswith(rightful), "a changed message was accepted"
        assert not peer.received
        assert peer.unwrapped <= 1, "the RSA key works once for a connection"
        assert peer.connection.reader.pending < PENDING_MAX
        _to_its_end(peer)

    return check


def _to_its_end(peer: Peer) -> None:
    """Whatever came, the deadlines end the connection; then nothing is sent or stored."""
    now = 0.0
    for _ in range(10):
        due = peer.connection.next_deadline()
        if due is None:
            break
        assert due >= now, "deadlines do not go back"
        now = due
        peer.at(due)
        peer.give()
    assert peer.connection.finished
    assert peer.connection.next_deadline() is None
    peer.take(b"more")
    assert peer.give() == b""
    peer.closed  # noqa: B018  # exactly one, and the last


def _handshakes(*phases: Phase) -> SearchStrategy[Answer]:
    return st.builds(Answer, st.sampled_from(phases), edits, cuts)


client_handshake = Target(
    "client_handshake",
    _handshakes(Phase.AWAIT_SERVER_HELLO, Phase.PIN_DECISION, Phase.AWAIT_SERVER_FINISHED),
    _check_handshake(Side.CLIENT),
    examples=60,
)
server_handshake = Target(
    "server_handshake",
    _handshakes(Phase.AWAIT_CLIENT_KEY, Phase.UNWRAPPING, Phase.AWAIT_CLIENT_FINISHED),
    _check_handshake(Side.SERVER),
    examples=60,
)


# --- records --------------------------------------------------------------------------------------
class Sealed(NamedTuple):
    """A record with a valid tag and any content, and changes to its frame."""

    inner: bytes
    changes: list[Edit]


class Pause(NamedTuple):
    """Time passes."""

    seconds: float


class Close(NamedTuple):
    """This end closes."""

    code: int


inner: Final = st.one_of(
    st.builds(
        lambda content, kind, padding: content + bytes((kind,)) + bytes(padding),
        st.binary(max_size=80)
        | st.sampled_from((b"", bytes(65_536), b"c" * 65_537, b"\x07\xd0\0\0")),
        st.sampled_from((1, 2, 3, 3, 4, 5, 6)) | st.integers(0, 255),
        st.sampled_from((0, 1, 15, 63, 4095)),
    ),
    st.binary(max_size=20),
)
actions: Final = st.lists(
    st.builds(Sealed, inner, st.just([]) | edits)
    | st.binary(max_size=100)
    | st.builds(Pause, st.sampled_from((0.5, 1.0, 2.0, 29.0, 30.0, 61.0)))
    | st.builds(Close, st.integers(0, 65_535)),
    max_size=12,
)


def sealed(cipher: SendCipher, content: bytes) -> bytes:
    """Return a Record frame around any plaintext, as only a misbehaving peer makes it."""
    content = (content or b"\0")[: limits.RECORD_INNER_BYTES_MAX]
    head = header(FrameType.RECORD, len(content) + limits.TAG_BYTES)
    nonce = (cipher._iv ^ cipher.sequence).to_bytes(12, "big")
    cipher.sequence += 1
    return head + new_aead(cipher._key).encrypt(nonce, content, head)


def _check_records(value: tuple[Side, list[Any]]) -> None:
    """Events and closes, never an exception; answers are no larger than what they answer."""
    side, todo = value
    pair = established()
    peer, other = (pair.client, pair.server) if side is Side.CLIENT else (pair.server, pair.client)
    received = answered = 0
    allowance = 4 * (padded_size(65) + 20)  # pings and closes of its own
    for action in todo:
        data = b""
        if isinstance(action, Pause):
            peer.at(peer.now + action.seconds)
            allowance += padded_size(65) + 20
        elif isinstance(action, Close):
            peer.connection.close(action.code, peer.now)
            peer.act()
        elif isinstance(action, Sealed):
            data = edited(sealed(other.connection._send, action.inner), action.changes)
            if action.inner.rstrip(b"\0")[-1:] == b"\x03":
                other.connection._send.update(0.0)
        else:
            data = action
        peer.take(data)
        received += len(data)
        answered += len(peer.give())
        assert answered <= 4 * received + allowance
        assert peer.connection.reader.pending < PENDING_MAX
    _to_its_end(peer)


records = Target(
    "records", st.tuples(st.sampled_from(list(Side)), actions), _check_records, examples=60
)


# --- envelopes ------------------------------------------------------------------------------------
def _check_envelopes(unpack: Unpack) -> Callable[[bytes], None]:
    def check(content: bytes) -> None:
        """Only EnvelopeError; what passes is the same when packed again; memory is bounded."""
        content = content[: limits.RECORD_CONTENT_BYTES_MAX]
        large = len(content) > 2048
        if large:
            tracemalloc.start()
        try:
            found = unpack(content)
            if large:
                assert tracemalloc.get_traced_memory()[1] < ENVELOPES_PEAK_BYTES
        except EnvelopeError as error:
            assert len(str(error)) < 200
            return
        finally:
            tracemalloc.stop()
        assert found
        again = b"".join(pack(one) for one in found if type(one) is not Unknown)
        if again:
            assert unpack(again) == [one for one in found if type(one) is not Unknown]

    return check


VECTOR_ENVELOPES: Final = [
    bytes.fromhex(case["packed"])
    for case in json.loads((VECTORS / "envelopes.json").read_text(encoding="utf-8"))["envelopes"]
]
CLIENT_SEEDS: Final = [*map(pack, TO_SERVER), *VECTOR_ENVELOPES]
SERVER_SEEDS: Final = [*map(pack, TO_CLIENT), *VECTOR_ENVELOPES]
client_envelopes = Target(
    "client_envelopes",
    contents(CLIENT_SEEDS, "client_envelopes"),
    _check_envelopes(unpack_client),
    of_bytes=bytes,
    seeds=[*CLIENT_SEEDS, *corpus_of("client_envelopes")],
    quick=3000,
)
server_envelopes = Target(
    "server_envelopes",
    contents(SERVER_SEEDS, "server_envelopes"),
    _check_envelopes(unpack_server),
    of_bytes=bytes,
    seeds=[*SERVER_SEEDS, *corpus_of("server_envelopes")],
    quick=3000,
)


# --- the bus and the key agent --------------------------------------------------------------------
BUS_BODIES: Final = [
    body
    for one in BUS_SAMPLES
    if len(body := bus_bytes.pack(one)[bus_bytes.HEADER :]) < SAMPLE_BYTES_MAX
]


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(bus_bytes.HEADER, "big") + body


def _read_bus(reads: list[bytes]) -> tuple[list[object], bool]:
    reader = bus_bytes.MessageReader()
    found: list[object] = []
    for data in reads:
        try:
            found += reader.feed(data)
        except RemoteProtocolError:
            return found, True
        held = getattr(reader, "pending", len(reader._buffer))
        assert held < bus_bytes.HEADER + bus_bytes.MESSAGE_BYTES_MAX
    return found, False


def _check_bus(value: tuple[list[bytes], list[Edit], list[int]]) -> None:
    bodies, changes, sizes = value
    data = edited(b"".join(map(_framed, bodies)), changes)
    whole, refused = _read_bus([data])
    cut, cut_refused = _read_bus(list(pieces(data, sizes)))
    assert refused == cut_refused
    assert refused or whole == cut
    for message in cut:
        if type(message) is not Unknown:
            (again,) = bus_bytes.MessageReader().feed(bus_bytes.pack(cast("bus.Message", message)))
            assert again == message


bus_messages = Target(
    "bus_messages",
    st.tuples(
        st.lists(
            contents(BUS_BODIES, "bus_messages"),
            max_size=3,
        ),
        st.just([]) | edits,
        cuts,
    ),
    _check_bus,
    of_bytes=lambda data: ([data[: bus_bytes.MESSAGE_BYTES_MAX]], [], [1, 4, 1000]),
    seeds=[*BUS_BODIES, *corpus_of("bus_messages")],
    quick=8000,
)
AGENT_FRAMES: Final = [
    agent.pack(agent.Kind.HELLO, 0, bytes(294)),
    agent.pack_question(agent.Kind.UNWRAP, 7, bytes(256), "127.0.0.1"),
    agent.pack_question(agent.Kind.UNWRAP, 2**32 - 1, bytes(1024), "é" * 40),
    agent.pack(agent.Kind.SECRET, 7, bytes(32)),
    agent.pack(agent.Kind.BUSY, 7),
    *corpus_of("key_agent"),
]


def _check_agent(value: tuple[bytes, list[int]]) -> None:
    """Only AgentProtocolError, of frames and of requests."""
    data, sizes = value
    results: list[tuple[list[agent.Frame], bool]] = []
    for reads in ([data], list(pieces(data, sizes))):
        reader = agent.FrameReader()
        found: list[agent.Frame] = []
        refused = False
        for read in reads:
            try:
                found += reader.feed(read)
            except agent.AgentProtocolError:
                refused = True
                break
        results.append((found, refused))
    assert results[0][1] == results[1][1]
    assert results[0][1] or results[0][0] == results[1][0]
    for frame in results[1][0]:
        try:
            ciphertext, source = agent.unpack_question(frame.payload)
        except agent.AgentProtocolError:
            continue
        assert 0 < len(ciphertext) <= agent.CIPHERTEXT_BYTES_MAX
        assert len(source) <= agent.SOURCE_BYTES_MAX


key_agent = Target(
    "key_agent",
    st.tuples(
        st.lists(st.builds(edited, st.sampled_from(AGENT_FRAMES), edits), max_size=3).map(b"".join)
        | st.binary(max_size=200),
        cuts,
    ),
    _check_agent,
    of_bytes=lambda data: (data, [1, 2, 3, 1000]),
    seeds=AGENT_FRAMES,
    quick=8000,
)
TARGETS: Final = (
    frames, client_handshake, server_handshake, records, client_envelopes, server_envelopes,
    bus_messages, key_agent,
)  # fmt: skip
