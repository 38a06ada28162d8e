"""The bus codec: every message is decoded as it was encoded, and everything else is refused."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import codec, limits
from relay.bus import packing as bus_packing
from relay.bus.messages import (
    ITEMS_PER_MESSAGE,
    TAG_STEP,
    Acks,
    Announced,
    Answered,
    Ask,
    Attach,
    Batch,
    Claim,
    Claimed,
    Damaged,
    Event,
    Evict,
    Heads,
    Introduction,
    Members,
    Message,
    NotFollowed,
    NotHome,
    Op,
    Presence,
    Refused,
    Release,
    Revoke,
    Revoked,
    Submit,
    Subscribe,
    Subscribed,
    Tell,
    Unsubscribe,
    Who,
)
from relay.bus.packing import (
    HEADER,
    MESSAGE_BYTES_MAX,
    RUN_BYTES_MAX,
    SHAPES,
    MessageReader,
    pack,
    pack_submits,
    unpack,
)
from relay.chat.entries import Extra, Submission
from relay.codec import Unknown
from relay.errors import EnvelopeError, RemoteProtocolError

EPOCH = b"epoch..."
U63 = limits.U63_MAX
LONG = "r" * (1 + limits.NAME_CHARS_MAX)
DISPLAY = "\U0001f600" * limits.DISPLAY_NAME_CHARS_MAX
NAME = "n" * limits.NAME_CHARS_MAX
SUBMISSION = Submission("lobby", "ada", b"", b"producer", 1, 0, "", b"")
SAMPLES: list[Message] = [
    Introduction(3, 2**40),
    Announced(2**40),
    Attach(15),
    Subscribe("lobby"),
    Unsubscribe(LONG),
    Submit(
        U63,
        Submission(LONG, NAME, bytes(32), b"producer", U63, 255, "t" * 64, bytes(32_768)),
        [bytes(RUN_BYTES_MAX // ITEMS_PER_MESSAGE)] * ITEMS_PER_MESSAGE,
    ),
    Submit(0, SUBMISSION, []),
    Submit(0, SUBMISSION, [b"another", b""]),
    Submit(1, SUBMISSION._replace(extra=Extra(NAME, EPOCH, U63, 30, EPOCH, U63, U63, NAME)), []),
    Presence(LONG, [[NAME, DISPLAY, limits.U32_MAX]] * ITEMS_PER_MESSAGE),
    Who(1, "lobby"),
    Claim(1, "ada", bytes(16), True, 5, bytes(32)),
    Ask(1, LONG, NAME, bytes(16), bytes(1024)),
    Revoked(7),
    Answered(1, 20, "e" * limits.ERROR_TEXT_BYTES_MAX, bytes(limits.BODY_BYTES_MAX)),
    Revoke(7, NAME, [bytes(16)] * ITEMS_PER_MESSAGE, True, False),
    Release(1, "ada"),
    Subscribed("lobby", EPOCH, 0),
    Batch("lobby", 0, EPOCH, 1, 1, b"x"),
    Batch(LONG, U63 - 1, EPOCH, U63, limits.U32_MAX, bytes(limits.RECORD_CONTENT_BYTES_MAX)),
    Event("lobby", b"x"),
    Heads([["lobby", EPOCH, 5]] * ITEMS_PER_MESSAGE),
    Acks([[U63, EPOCH, U63, ITEMS_PER_MESSAGE]] * ITEMS_PER_MESSAGE),
    Refused(1, 65_535, U63, "e" * limits.ERROR_TEXT_BYTES_MAX),
    Claimed(1, False, False, 15, "no", b"", False),
    Claimed(1, True, False, 0, "", bytes(32), True),
    Evict(1),
    Tell(1, b"envelope"),
    Members(1, U63, U63, 10_000, [[NAME, DISPLAY, 1]] * limits.ROSTER_NAMES_MAX),
    NotHome(15),
    Damaged(15, "r" * 4096),
    NotFollowed(LONG, 23, "e" * limits.ERROR_TEXT_BYTES_MAX),
]
STREAM = b"".join(map(pack, SAMPLES))


def test_there_is_a_sample_of_every_message() -> None:
    assert {type(sample) for sample in SAMPLES} == {shape.type for shape in SHAPES.values()}
    assert set(typing.get_args(Message)) == {shape.type for shape in SHAPES.values()}


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_there_and_back(message: Message) -> None:
    """Equal in type and value, and never longer than the other side accepts."""
    data = pack(message)
    assert int.from_bytes(data[:HEADER], "big") == len(data) - HEADER <= MESSAGE_BYTES_MAX
    back = unpack(data[HEADER:])
    assert type(back) is type(message)
    assert back == message


@pytest.mark.parametrize("step", [1, 2, 3, 7, 4096, 65_537, len(STREAM)])
def test_framing_at_any_cut(step: int) -> None:
    """All at once, in pieces, byte by byte: the same messages."""
    stream = STREAM if step > 100 else b"".join(map(pack, SAMPLES[:4] + SAMPLES[8:13]))
    expected = SAMPLES if step > 100 else SAMPLES[:4] + SAMPLES[8:13]
    reader = MessageReader()
    found: list[Message] = []
    for at in range(0, len(stream), step):
        found += reader.feed(stream[at : at + step])
    assert found == expected


def test_a_message_is_given_out_as_soon_as_it_is_whole() -> None:
    """Not a byte earlier, and what follows it waits for its own end."""
    data = pack(Who(1, "lobby"))
    reader = MessageReader()
    assert reader.feed(data[:-1]) == []
    assert reader.feed(data[-1:] + data[:5]) == [Who(1, "lobby")]
    assert reader.feed(data[5:]) == [Who(1, "lobby")]


@pytest.mark.parametrize("length", [0, MESSAGE_BYTES_MAX + 1, 2**32 - 1])
def test_illegal_length(length: int) -> None:
    """Refused by the header alone: nothing is buffered for it."""
    reader = MessageReader()
    with pytest.raises(RemoteProtocolError):
        reader.feed(length.to_bytes(HEADER, "big"))


def test_trailing_bytes_in_a_message() -> None:
    """One message is one array."""
    body = pack(Evict(1))[HEADER:]
    with pytest.raises(EnvelopeError):
        unpack(body + b"\xc0")
    with pytest.raises(EnvelopeError):
        unpack(body + body)


def test_later_versions_may_say_more() -> None:
    """Unknown operations and trailing fields are accepted (workers of two versions meet)."""
    assert isinstance(unpack(codec.pack([200, 1, 2])), Unknown)
    assert unpack(codec.pack([int(Op.EVICT), 7, "more", [1, 2]])) == Evict(7)


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_each_field_is_checked(message: Message) -> None:
    """Any field replaced by a value of another type is refused; so is any missing one."""
    fields = [bus_packing._OP_OF[type(message)], *message]
    for index in range(1, len(fields)):
        wrongs: list[object] = [None, -1, 1.5, {}, [[]]]
        if not isinstance(fields[index], bool):
            wrongs.append(True)
        for wrong in wrongs:
            with pytest.raises(EnvelopeError):
                unpack(codec.pack([*fields[:index], wrong, *fields[index + 1 :]]))
        with pytest.raises(EnvelopeError):
            unpack(codec.pack(fields[:index]))


@pytest.mark.parametrize(
    "message",
    [
        Acks([[1, EPOCH, 1, 1]] * (ITEMS_PER_MESSAGE + 1)),
        Acks([[1, EPOCH, 1, 0]]),
        Acks([[1, EPOCH, 1, ITEMS_PER_MESSAGE + 1]]),
        Batch("lobby", 0, EPOCH, 1, 1, bytes(limits.RECORD_CONTENT_BYTES_MAX + 1)),
        Batch("lobby", 0, EPOCH, 0, 1, b"x"),
        Batch("lobby", 0, EPOCH[1:], 1, 1, b"x"),
        Subscribe(""),
        Subscribe(LONG + "r"),
        Submit(0, SUBMISSION._replace(counter=0), []),
        Submit(0, SUBMISSION._replace(body=bytes(limits.BODY_BYTES_MAX + 1)), []),
        Submit(0, SUBMISSION, [bytes(limits.BODY_BYTES_MAX + 1)]),
        Submit(0, SUBMISSION, [b""] * (ITEMS_PER_MESSAGE + 1)),
        Claim(1, "ada", bytes(15), False, 5, b""),
    ],
    ids=lambda m: type(m).__name__,
)
def test_over_a_bound(message: Message) -> None:
    with pytest.raises(EnvelopeError):
        unpack(pack(message)[HEADER:])


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_garbage(pieces: list[bytes]) -> None:
    """Messages, or RemoteProtocolError: never another exception."""
    reader = MessageReader()
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                assert isinstance(message, tuple)
    except RemoteProtocolError:
        pass


@given(st.data())
def test_damaged_messages(data: st.DataObject) -> None:
    """One changed byte of a real message: parsed as a legal message, or refused."""
    sample = data.draw(st.sampled_from([s for s in SAMPLES if len(pack(s)) < 1000]))
    body = bytearray(pack(sample)[HEADER:])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    try:
        message = unpack(bytes(body))
    except RemoteProtocolError:
        return
    assert isinstance(message, Unknown) or unpack(pack(message)[HEADER:]) == message


def _run(count: int, body: bytes = b"x") -> list[Submission]:
    return [SUBMISSION._replace(counter=counter, body=body) for counter in range(1, count + 1)]


@pytest.mark.parametrize(
    ("sends", "runs"),
    [
        (_run(1), [1]),
        (_run(1000), [ITEMS_PER_MESSAGE, 1000 - ITEMS_PER_MESSAGE]),
        (_run(5, bytes(limits.BODY_BYTES_MAX)), [3, 2]),
        ([*_run(2), *_run(2)], [2, 2]),
        ([SUBMISSION, SUBMISSION._replace(counter=3)], [1, 1]),
        ([SUBMISSION, SUBMISSION._replace(counter=2, kind=4)], [1, 1]),
        ([SUBMISSION, SUBMISSION._replace(counter=2, content_type="text/plain")], [1, 1]),
        ([SUBMISSION, SUBMISSION._replace(counter=2, root=bytes(32))], [1, 1]),
        ([SUBMISSION, SUBMISSION._replace(counter=2, operator=True)], [1, 1]),
        ([SUBMISSION, SUBMISSION._replace(counter=2, extra=Extra(NAME))], [1, 1]),
        ([SUBMISSION._replace(extra=Extra(NAME)), SUBMISSION._replace(counter=2)], [1, 1]),
    ],
)
def test_sends_travel_in_runs(sends: list[Submission], runs: list[int]) -> None:
    """The number of runs is minimal, and decoding them gives the sends."""
    messages = MessageReader().feed(b"".join(pack_submits(7, sends)))
    found: list[Submission] = []
    for message in messages:
        assert isinstance(message, Submit)
        assert message.tag == 7 + len(found) * TAG_STEP
        found.append(message.submission)
        for body in message.more:
            found.append(found[-1]._replace(counter=found[-1].counter + 1, body=body))
    assert found == sends
    assert [len(message.more) + 1 for message in messages if isinstance(message, Submit)] == runs
