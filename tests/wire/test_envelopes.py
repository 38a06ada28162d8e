"""Envelopes: every operation both ways, and msgpack that is valid but refused."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.chat.accounts.links import LINK_BYTES_MAX
from relay.chat.entries import packable
from relay.codec import VALUES_PER_STEP, Unknown, Unpacking
from relay.errors import EnvelopeError
from relay.wire.envelopes import (
    Account,
    Ack,
    Behind,
    Chain,
    ClientEnvelope,
    Devices,
    Done,
    Enrol,
    EntryMessage,
    Error,
    Found,
    Gap,
    Hello,
    History,
    Invited,
    Join,
    Joined,
    Leave,
    Left,
    Live,
    Members,
    NextKey,
    Op,
    Page,
    Prove,
    Refused,
    Register,
    Removed,
    Room,
    Roster,
    Search,
    Send,
    ServerEnvelope,
    Welcome,
    Who,
)
from relay.wire.packing import (
    CLIENT_SCHEMA,
    CLIENT_SHAPES,
    SERVER_SHAPES,
    pack,
    pack_acks,
    pack_entry,
    pack_page,
    unpack_client,
    unpack_entry,
    unpack_server,
)

Unpack = Callable[[bytes], list[Any]]
Envelope: TypeAlias = ClientEnvelope | ServerEnvelope
Identified: TypeAlias = Join | Send | Room | Joined
E, P = b"epoch..8", b"producer of 16 b"
U32, U63 = 2**32 - 1, 2**63 - 1
ENTRY = EntryMessage("lobby", E, 7, 6, 1_700_000_000_000, "ann", b"", P, 3, 0, "text/plain", b"hi")
CLIENT: list[ClientEnvelope] = [
    Hello("ann", b"s" * 16, "Ann", "relay/1", b"k" * 32, b"s" * 64),
    Hello("~" + "a" * 31, b"s" * 16, "", ""),
    Join(1, "lobby", None, 0, 50),
    Join(U32, "@ann", E, U63, U32),
    Leave(2, "lobby"),
    Send("lobby", 1, 0, "text/plain", b"hello"),
    Send("lobby", U63, 255, "", bytes(32_768)),
    Who(3, "lobby"),
    History(4, "lobby", True, 0, 100),
    History(4, "lobby", False, U63, 65_535),
    Search(5, "lobby", "w" * 256, U63, 65_535),
    Search(5, "@ann", "é", 0, 1),
    Register(1, "ann", b"k" * 32, b"s" * 64, b"l" * LINK_BYTES_MAX, b""),
    Register(U32, "ann", b"k" * 32, b"s" * 64, b"l", b"t" * 32),
    Enrol(1, "ann", b"k" * 32, b"s" * 64, b""),
    Enrol(1, "ann", b"k" * 32, b"s" * 64, b"c" * 64),
    Devices(2, "ann", 65_535),
    Account(3, "", b"r"),
    Account(3, "a" * 32, b"r" * 1024),
    Prove(8, b"a challenge"),
    Room(3, "", b"r"),
    Room(3, "a" * 32, b"r" * 1024),
]
SERVER: list[ServerEnvelope] = [
    Welcome("ann", 1_700_000_000_000, 32_768, 1024, "relay/1", b"r" * 32),
    Done(3, bytes(32_768)),
    Chain(2, "ann", [b"l" * LINK_BYTES_MAX] * 3, False),
    Joined(1, "lobby", E, 3, E, 7),
    Left(2, "lobby"),
    Ack("lobby", 1, E, 0),
    Refused("lobby", 1, 11, 500, "busy"),
    Error(0, 4, 0, "é" * 256),
    ENTRY,
    Roster("lobby", 1, 2, 3, [["ann", "Ann"]], ["bob"]),
    Members(3, "lobby", 1, 2, 3, [["ann", "Ann", 2]]),
    Page(4, "lobby", 3, False, [ENTRY, ENTRY._replace(seq=8, prev=7)]),
    Page(4, "lobby", 0, True, []),
    Found(5, "lobby", 3, False, U63, [ENTRY, ENTRY._replace(seq=6, prev=5)]),
    Found(5, "lobby", 0, True, 0, []),
    Live("lobby", E, 7),
    Behind("lobby", E, 7),
    Gap("lobby", E, 7, E, 9, 1),
    NextKey(bytes(range(32))),
    Removed("lobby", 40, "spam"),
    Invited("team", "ann"),
]
SAMPLES: list[tuple[Unpack, Any]] = [
    *((unpack_client, envelope) for envelope in CLIENT),
    *((unpack_server, envelope) for envelope in SERVER),
]
EACH = pytest.mark.parametrize(("unpack", "envelope"), SAMPLES)


def packed(envelope: Envelope) -> bytes:
    """Return the envelope as server and client pack it: a PAGE has rows that are packed already."""
    if isinstance(envelope, Page):
        rows = [pack_entry(packable(entry)) for entry in envelope.entries]
        return pack_page(*envelope[:4], rows)
    return pack(envelope)


def packb(*fields: object) -> bytes:
    return msgpack.packb(list(fields))


def refused(data: bytes, unpack: Unpack = unpack_client) -> None:
    with pytest.raises(EnvelopeError):
        unpack(data)


def every_way(unpack: Unpack, data: bytes) -> list[Any]:
    """Unpack whole; refuse every prefix and every trailing byte that does not begin an envelope."""
    whole = unpack(data)
    for length in {*range(min(len(data), 300)), len(data) - 1}:
        refused(data[:length], unpack)
    for extra in (b"\x00", b"\xc0", b"\xc1", b"\x90", b"\x93", b"\xff", data[:-1]):
        refused(data + extra, unpack)
    assert unpack(data + data) == whole * 2
    return whole


@EACH
def test_envelopes_both_ways(unpack: Unpack, envelope: Envelope) -> None:
    assert every_way(unpack, packed(envelope)) == [envelope]


def test_every_operation_is_tried_above() -> None:
    tried = {type(envelope) for envelope in CLIENT + SERVER}
    assert tried == {shape.type for shape in (CLIENT_SHAPES | SERVER_SHAPES).values()}
    assert set(CLIENT_SHAPES) | set(SERVER_SHAPES) == set(Op)
    assert all(1 <= op <= 31 for op in CLIENT_SHAPES)
    assert all(33 <= op <= 63 for op in SERVER_SHAPES)


def test_layout() -> None:
    assert pack(Leave(2, "lobby")) == b"\x93\x03\x02\xa5lobby"
    assert pack(Join(1, "ab", None, 0, 5)) == b"\x96\x02\x01\xa2ab\xc0\x00\x05"
    assert pack(Send("ab", 1, 0, "", b"x")) == b"\x96\x04\xa2ab\x01\x00\xa0\xc4\x01x"


WRONG_FOR_ALL: list[object] = [
    True, False, -1, 2**63, 2**64 - 1, 1.0, math.nan, math.inf, -0.0, {}, {1: 2}, [], [[]],
    msgpack.ExtType(5, b""), msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 2),
]  # fmt: skip


IDENTIFIED: list[tuple[Unpack, Identified]] = [
    (unpack_client, Join(1, "lobby", None, 0, 50, E)),
    (unpack_client, Send("lobby", 1, 0, "text/plain", b"hello", identity=E)),
    (unpack_client, Send("lobby", 1, 4, "text/plain", b"hello", E, 7, b"identity")),
    (unpack_client, Room(3, "lobby", b"r", E)),
    (unpack_server, Joined(1, "lobby", E, 3, E, 7, E)),
]


@pytest.mark.parametrize(("unpack", "envelope"), IDENTIFIED)
def test_the_identity_of_a_room_comes_last(unpack: Unpack, envelope: Identified) -> None:
    """It is absent if it is empty, as in versions before; it is the last field or none."""
    assert every_way(unpack, pack(envelope)) == [envelope]
    op, *fields = msgpack.unpackb(pack(envelope))
    assert fields[-1] == envelope.identity
    for wrong in (*WRONG_FOR_ALL, None, "text", 5, b"y" * 9):
        refused(packb(op, *fields[:-1], wrong), unpack)
    without = envelope._replace(identity=b"")
    assert unpack(packb(op, *fields[:-1])) == [without]
    assert unpack(packb(op, *fields[:-1], b"")) == [without]
    assert unpack(packb(op, *fields, "later", 7)) == [envelope]
    assert len(pack(without)) < len(pack(envelope))


def test_what_a_message_is_about_is_whole_with_an_identity_or_without() -> None:
    """Two fields were there before the identity was: one of them alone is nothing."""
    fields = Op.SEND, "lobby", 1, 0, "text/plain", b"hello"
    assert unpack_client(packb(*fields, E, 7)) == [Send(*fields[1:], E, 7)]
    refused(packb(*fields, E))
    refused(packb(*fields, b""))


# --- every field, wrong in every way --------------------------------------------------------------
OTHER_TYPES: list[object] = [*WRONG_FOR_ALL, None, "text", b"bytes", 5, "x" * 600, b"y" * 40_000]


@EACH
def test_a_field_of_another_type(unpack: Unpack, envelope: Envelope) -> None:
    op, *fields = msgpack.unpackb(packed(envelope))
    for index, right in enumerate(fields):
        for wrong in OTHER_TYPES:
            same = type(wrong) is type(right)
            may_be_nil = wrong is None and isinstance(envelope, Join) and index == 2
            if not same and not may_be_nil and not (right is None and wrong == E):
                refused(packb(op, *fields[:index], wrong, *fields[index + 1 :]), unpack)


@EACH
def test_a_missing_field(unpack: Unpack, envelope: Envelope) -> None:
    op, *fields = msgpack.unpackb(packed(envelope))
    for count in range(len(fields)):
        refused(packb(op, *fields[:count]), unpack)


BOUNDS: list[tuple[ClientEnvelope, str]] = [
    (Hello("", b"s" * 16, "", ""), "an empty name"),
    (Hello("a" * 33, b"s" * 16, "", ""), "a name of 33"),
    (Hello("é" * 17, b"s" * 16, "", ""), "34 bytes in 17 characters"),
    (Hello("ann", b"s" * 15, "", ""), "a short secret"),
    (Hello("ann", b"s" * 17, "", ""), "a long secret"),
    (Hello("ann", b"s" * 16, "d" * 257, ""), "a long display name"),
    (Hello("ann", b"s" * 16, "é" * 129, ""), "258 bytes of display name"),
    (Hello("ann", b"s" * 16, "", "a" * 65), "a long agent"),
    (Join(2**32, "lobby", None, 0, 0), "a request of 33 bits"),
    (Join(0, "lobby", None, 0, 0), "request 0 of JOIN"),
    (Leave(0, "lobby"), "request 0 of LEAVE"),
    (Who(0, "lobby"), "request 0 of WHO"),
    (History(0, "lobby", False, 0, 1), "request 0 of HISTORY"),
    (Join(1, "", None, 0, 0), "an empty log"),
    (Join(1, "l" * 34, None, 0, 0), "a log of 34"),
    (Join(1, "lobby", b"e" * 7, 0, 0), "a short epoch"),
    (Join(1, "lobby", None, 2**63, 0), "a seq of 64 bits"),
    (Send("lobby", 0, 0, "", b""), "counter 0"),
    (Send("lobby", 2**63, 0, "", b""), "a counter of 64 bits"),
    (Send("lobby", 1, 256, "", b""), "kind 256"),
    (Send("lobby", 1, 0, "c" * 65, b""), "a long content type"),
    (Send("lobby", 1, 0, "", bytes(32_769)), "a body one too long"),
    (History(1, "lobby", True, 0, 65_536), "a count of 17 bits"),
    (History(1, "lobby", 1, 0, 1), "1 for true"),  # type: ignore[arg-type]
    (Search(0, "lobby", "w", 0, 1), "request 0 of SEARCH"),
    (Search(1, "lobby", "", 0, 1), "nothing to search for"),
    (Search(1, "lobby", "w" * 257, 0, 1), "257 bytes to search for"),
    (Search(1, "lobby", "é" * 129, 0, 1), "258 bytes to search for"),
]


@pytest.mark.parametrize(("envelope", "why"), BOUNDS, ids=[why for _, why in BOUNDS])
def test_a_field_out_of_bounds(envelope: ClientEnvelope, why: str) -> None:
    refused(pack(envelope))


# --- msgpack's own freedoms -----------------------------------------------------------------------
HELLO_FIELDS = (b"s" * 16, "", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x90",
        b"\xc1",
        b"\x80",
        b"\xc0",
        b"\x05",
        b"\xa5hello",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x93\x05\x01\xc6\xff\xff\xff\xff",
        b"\x93\x05\x01\xdb\x00\x01\x00\x01" + b"l" * 65_536,
        packb(Op.HELLO, b"ann", *HELLO_FIELDS),
        packb(Op.HELLO, "ann", "s" * 16, "", ""),
        b"\x93\x05\x01\xa2\xff\xfe",
        b"\x93\x05\x01\xa3\xed\xa0\x80",
        b"\x93\x05\x01\xa2\xc0\x80",
        b"\x93\xc3\x01\xa5lobby",
        b"\x93\xcb\x40\x14\0\0\0\0\0\0\x01\xa5lobby",
        b"\x93\xff\x01\xa5lobby",
        b"\x82\x00\x05\x01\x01",
        b"\x82\x00\x05\x00\x06",
        b"\xd6\xff\0\0\0\0",
        b"\xc7\x0c\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0",
        b"\xd7\xff\xff\xff\xff\xff\0\0\0\0",
    ],
    ids=lambda data: data[:12].hex() or "empty",
)
def test_bytes_that_are_no_envelope(data: bytes) -> None:
    tracemalloc.start()
    try:
        refused(data, unpack_client)
        with suppress(EnvelopeError):  # a client's operation is unknown from a server
            assert {type(one) for one in unpack_server(data)} == {Unknown}
        assert tracemalloc.get_traced_memory()[1] < 10_240 + 4 * len(data)
    finally:
        tracemalloc.stop()


def test_integers_may_be_longer_than_needed() -> None:
    """Relayed values are packed again, so it does not matter."""
    assert unpack_client(b"\x93\xcc\x05\xd3\0\0\0\0\0\0\0\x01\xd9\x05lobby") == [Who(1, "lobby")]


def test_fields_of_a_later_version() -> None:
    assert unpack_client(packb(Op.WHO, 1, "lobby", "new", [1, [2]], None)) == [Who(1, "lobby")]
    many = packb(Op.WHO, 1, "lobby", *range(21))
    assert unpack_client(many) == [Who(1, "lobby")]
    refused(packb(Op.WHO, 1, "lobby", *range(22)))


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("op", [Op.WHO, 20])
def test_nesting(op: int) -> None:
    """Eight arrays deep with the envelope itself; not nine, not 600, not 60,000."""
    known = [1, "lobby"] if op == Op.WHO else []
    assert unpack_client(packb(op, *known, nested(7)))
    refused(packb(op, *known, nested(8)))
    refused(packb(op, *known, nested(400)))
    for depth in (600, 1023, 1024, 1025, 60_000):
        refused(bytes((0x92, op)) + b"\x91" * depth + b"\x90")


@pytest.mark.parametrize("foreign", [b"\x80", b"\x81\x01\x01", b"\xc7\x00\x05", b"\xd4\x05\x00"])
@pytest.mark.parametrize("start", [b"\x94\x05\x01\xa5lobby", b"\x92\x14"])
def test_maps_and_extensions_nowhere(start: bytes, foreign: bytes) -> None:
    """An empty map passes msgpack's own bound of 0."""
    refused(start + foreign)
    refused(start + b"\x91" + foreign)


UNKNOWN = [0, 11, 32, 64, 255, 256, 65_535, 65_536, U32]


@pytest.mark.parametrize("op", UNKNOWN)
def test_an_unknown_operation_is_no_violation(op: int) -> None:
    """Section 6: any number that is not in the direction's table, with any fields."""
    for fields in ((), ("anything",), (None, -1, 0.5, [[b"x"]])):
        assert unpack_client(packb(op, *fields)) == [Unknown(op)]
        assert unpack_server(packb(op, *fields)) == [Unknown(op)]


@EACH
def test_an_operation_of_the_other_direction_is_unknown(unpack: Unpack, envelope: Envelope) -> None:
    other = unpack_server if unpack is unpack_client else unpack_client
    data = packed(envelope)
    if any(type(one) is list and len(one) > 24 for one in msgpack.unpackb(data)):
        return
    assert other(data) == [Unknown(data[1])]


@pytest.mark.parametrize("op", [-1, 2**32, 2**63, 2**64 - 1, 7.0, True, None, "7", b"7", [7]])
def test_what_is_no_number_of_an_operation(op: object) -> None:
    refused(packb(op), unpack_client)
    refused(packb(op), unpack_server)


@pytest.mark.parametrize("unpack", [unpack_client, unpack_server])
def test_an_unknown_operation_is_bound_to_the_rules_for_all(unpack: Unpack) -> None:
    """At most 24 elements with the op, 8 arrays deep with the envelope, no maps or extensions."""
    array_max = 24 if unpack is unpack_client else 1000
    assert unpack(packb(11, *range(23)))
    assert unpack(packb(11, [0] * array_max))
    assert unpack(packb(11, nested(7)))
    too_much: list[list[Any]] = [
        list(range(24)), [[0] * (array_max + 1)], [nested(8)], [{}], [[{1: 2}]],
    ]  # fmt: skip
    for fields in too_much:
        refused(packb(11, *fields), unpack)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("op", [Op.WHO, 20])
def test_values_of_an_envelope_of_a_client(op: int, count: int) -> None:
    """Elements of all its arrays: 1024, not one more. A server's envelope is bounded by its
    bytes.
    """
    known = [1, "lobby"] if op == Op.WHO else []
    many = [[0] * 24] * 24, [[0] * 24] * 15  # 600 and 375 with their own elements
    left = 1024 - 600 - 375 - (1 + len(known) + 4) - 24
    assert len(unpack_client(packb(op, *known, *many, [0] * 24, [0] * left) * count)) == count
    too_much = packb(op, *known, *many, [0] * 24, [0] * (left + 1))
    refused(too_much * count, unpack_client)
    refused(pack(Who(1, "lobby")) + too_much, unpack_client)
    if op == 20:
        assert unpack_server(too_much * count) == [Unknown(20)] * count


@pytest.mark.parametrize("row", [["bob"], ["bob", "Bob", 1], ["bob", "Bob", None]])
def test_a_row_of_a_roster_has_exactly_its_elements(row: list[object]) -> None:
    good = packb(Op.ROSTER, "lobby", 1, 2, 2, [["bob", "Bob"]], [])
    assert unpack_server(good) == [Roster("lobby", 1, 2, 2, [["bob", "Bob"]], [])]
    refused(packb(Op.ROSTER, "lobby", 1, 2, 2, [row], []), unpack_server)


@pytest.mark.parametrize("row", [["bob", "Bob"], ["bob", "Bob", 1, 2]])
def test_a_row_of_members_has_exactly_its_elements(row: list[object]) -> None:
    assert unpack_server(packb(Op.MEMBERS, 1, "lobby", 1, 2, 2, [["bob", "Bob", 1]]))
    refused(packb(Op.MEMBERS, 1, "lobby", 1, 2, 2, [row]), unpack_server)


def test_content_type_and_agent_are_not_looked_into() -> None:
    text = "\x1b[2J\0\r\n\u202e"
    for envelope in (Hello("ann", b"s" * 16, "", text), Send("lobby", 1, 0, text, b"")):
        assert unpack_client(pack(envelope)) == [envelope]


# --- many in one record ---------------------------------------------------------------------------
def test_envelopes_in_one_record() -> None:
    one = pack(Who(1, "ab"))
    assert len(unpack_client(one * 1024)) == 1024
    refused(one * 1025)
    refused(one * 3 + one[:3])
    refused(one * 3 + b"\0")
    assert len(unpack_server(pack(Left(1, "ab")) * 2000)) == 2000


def test_order_is_kept() -> None:
    envelopes = [Send("lobby", n, 0, "", bytes((n,))) for n in range(1, 50)]
    assert unpack_client(b"".join(map(pack, envelopes))) == envelopes


def test_a_record_of_many_is_unpacked_in_steps() -> None:
    """By their elements, not by their number; all of them in the end."""
    small = [Who(n, "lobby") for n in range(1, 1001)]
    nested_ones = packb(99, *[nested(7)] * 23) * 100
    for content, values, expected in (
        (b"".join(map(pack, small)), 3, small),
        (nested_ones, 24 + 23 * 6, [Unknown(99)] * 100),
    ):
        parts = Unpacking(CLIENT_SCHEMA, [], content)
        while not parts.done:
            before = len(parts.messages)
            used = parts.advance()
            assert used == values * (len(parts.messages) - before)
            assert used < VALUES_PER_STEP + values
        assert parts.messages == expected


def test_one_bad_among_good_ends_all() -> None:
    refused(pack(Who(1, "lobby")) + packb(Op.WHO, -1, "lobby") + pack(Who(2, "lobby")))


def peak(data: bytes, unpack: Unpack) -> int:
    tracemalloc.start()
    try:
        refused(data, unpack)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_the_record() -> None:
    """The worst claims in 64 KiB, from a client and (with longer arrays) from a server."""
    full = 65_536
    nils = b"\xdd" + (full - 5).to_bytes(4, "big") + b"\xc0" * (full - 5)
    assert peak(nils, unpack_client) < 10_240
    empties = b"\x92\x05" + b"\xdc\x00\x18" + b"\x90" * 24
    assert peak(empties * (full // len(empties)), unpack_client) < 4_194_304
    claims = (b"\xdc\x27\x10" * 1000).ljust(full, b"\xc0")
    assert peak(claims, unpack_client) < 262_144
    # Each level may claim 1,000 items, for which msgpack allocates at once: 8 kB a level.
    assert peak(claims[:3000], unpack_server) < 262_144
    claims = (b"\xdc\x03\xe8" * 1000).ljust(full, b"\xc0")
    assert peak(claims[:3000], unpack_server) < 10_000_000


def test_rows_of_a_page_are_checked_as_entries() -> None:
    """The exact type of the operation, the number of fields, and what follows them."""
    entry = msgpack.unpackb(pack(ENTRY))
    assert unpack_server(msgpack.packb([Op.PAGE, 1, "lobby", 2, True, [entry]])) == [
        Page(1, "lobby", 2, True, [ENTRY])
    ]
    for row in (
        [39.0, *entry[1:]],
        entry[:-1],
        [*entry, {}],
        [*entry, *range(30)],
        [*entry, [[[[[[[[[[]]]]]]]]]]],
    ):
        with pytest.raises(EnvelopeError, match="Page: bad entries"):
            unpack_server(msgpack.packb([Op.PAGE, 1, "lobby", 2, True, [row]]))


def test_a_packed_page_is_legal() -> None:
    page = Page(1, "lobby", 2, True, [ENTRY, ENTRY])
    assert unpack_server(pack(page)) == [page]


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for unpack in (unpack_client, unpack_server):
        for text in (data, b"\x93" + data, b"\x96\x04\xa5lobby\x01\x00" + data):
            try:
                for envelope in unpack(text):
                    assert isinstance(envelope, tuple)
            except EnvelopeError:
                pass


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.text(max_size=8)
        | st.binary(max_size=16),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.integers(0, 9), inner),
        max_leaves=12,
    )
)
def test_random_values_raise_nothing_else(value: object) -> None:
    for op in Op:
        for unpack in (unpack_client, unpack_server):
            fields = value if isinstance(value, list) else [value]
            with suppress(EnvelopeError):
                unpack(msgpack.packb([int(op), *fields]))


def test_errors_do_not_quote_the_peer() -> None:
    for data in (
        packb(Op.HELLO, "my-password", b"my-password", "", ""),
        b"\x93\x05\x01\xabmy-password\xff",
        b"\x93\x05\x01\xac\xffmy-password",
    ):
        with pytest.raises(EnvelopeError) as caught:
            unpack_client(data)
        assert "password" not in repr(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


# --- rows of the store ----------------------------------------------------------------------------
def test_a_row_is_an_entry_envelope() -> None:
    row = pack_entry(packable(ENTRY))
    assert row == pack(ENTRY)
    assert unpack_server(row) == [ENTRY]
    assert unpack_entry(row) == ENTRY
    assert unpack_entry(row).content[:3] == (0, "text/plain", b"hi")


@pytest.mark.parametrize("count", [0, 1, 15, 16, 400])
def test_a_page_is_packed_around_its_rows(count: int) -> None:
    entries = [ENTRY._replace(seq=n + 1, prev=n) for n in range(count)]
    rows = [pack_entry(packable(entry)) for entry in entries]
    page = Page(9, "lobby", 4, False, entries)
    assert unpack_server(pack_page(9, "lobby", 4, False, rows)) == [page]
    assert pack_page(9, "lobby", 4, False, rows) == packb(
        Op.PAGE, 9, "lobby", 4, False, [[Op.ENTRY, *packable(entry)] for entry in entries]
    )


def test_a_page_with_something_else_among_its_rows() -> None:
    rows = [pack_entry(packable(ENTRY)), pack(Live("lobby", E, 7))]
    refused(pack_page(9, "lobby", 4, False, rows), unpack_server)
    short = packb(Op.ENTRY, *ENTRY[:-1])
    refused(pack_page(9, "lobby", 4, False, [short]), unpack_server)


def test_the_largest_entry_fits_a_record() -> None:
    largest = EntryMessage(
        "@" + "l" * 32, E, U63, U63, U63, "s" * 32, b"k" * 32, P, U63, 255, "c" * 64, bytes(32_768)
    )
    assert len(pack(largest)) < 32_768 + 1024
    assert unpack_server(pack(largest)) == [largest]


@pytest.mark.parametrize("durability", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 64, 300])
def test_acks_that_are_packed_together(count: int, durability: int) -> None:
    """The same bytes as one by one, for numbers of any size."""
    counters = list(range(100, 100 + count))
    apart = [
        pack(Ack("lobby", counter, b"epoch...", 65_530 + at, durability))
        for at, counter in enumerate(counters)
    ]
    assert pack_acks("lobby", counters, b"epoch...", 65_530, durability) == b"".join(apart)
