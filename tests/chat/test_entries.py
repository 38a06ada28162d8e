"""The types of entries: what is sent and stored keeps its field order and its numbers."""

from __future__ import annotations

from relay.bus import messages
from relay.bus import packing as bus_packing
from relay.chat.entries import (
    ENTRY_CHECKS,
    EXTRA_CHECKS,
    NO_EPOCH,
    Cursor,
    Entry,
    Extra,
    GapReason,
    Head,
    Kind,
    Submission,
    committed,
)
from relay.limits import EPOCH_BYTES
from relay.wire import packing

SUBMISSION = Submission("lobby", "ada", b"k", b"producer", 1, 0, "text/plain", b"hi")


def test_the_order_of_an_entrys_fields_is_the_protocols() -> None:
    assert Entry._fields == (
        "log", "epoch", "seq", "prev", "time_ms", "sender", "key_id", "producer", "counter",
        "kind", "content_type", "body", "to", "about_epoch", "about_seq",
    )  # fmt: skip


def test_a_submission_has_what_the_sender_decides() -> None:
    given = set(Submission._fields) | {"to", "about_epoch", "about_seq"}
    assert set(Entry._fields) - given == {"epoch", "seq", "prev", "time_ms"}
    assert set(Submission._fields) - set(Entry._fields) == {"root", "operator", "identity", "extra"}
    assert set(Extra._fields) & set(Entry._fields) == {"to", "about_epoch", "about_seq"}


def test_numbers_are_the_protocols() -> None:
    assert [(kind.name, kind.value) for kind in Kind] == [
        ("MESSAGE", 0),
        ("EDIT", 1),
        ("REDACTION", 2),
        ("SYSTEM", 3),
        ("REACTION", 4),
        ("MARK", 5),
        ("ERASED", 6),
    ]
    assert [(reason.name, reason.value) for reason in GapReason] == [
        ("EPOCH", 1),
        ("AHEAD", 2),
        ("RETENTION", 3),
        ("DAMAGED", 4),
    ]


def test_no_epoch_has_the_length_of_one() -> None:
    assert bytes(EPOCH_BYTES) == NO_EPOCH
    assert tuple(Head(NO_EPOCH, 0)) == tuple(Cursor(NO_EPOCH, 0))


def test_every_field_of_an_entry_has_its_check() -> None:
    entry = committed(SUBMISSION, b"epoch...", 1, 0, 5)
    assert entry == (
        "lobby", b"epoch...", 1, 0, 5, "ada", b"k", b"producer", 1, 0, "text/plain", b"hi",
    )  # fmt: skip
    bad: dict[str, object] = {
        "log": "", "epoch": b"short", "seq": 0, "prev": -1, "time_ms": True, "sender": "n" * 33,
        "key_id": bytes(33), "producer": b"", "counter": 0, "kind": 256, "content_type": b"",
        "body": "text", "to": "n" * 33, "about_epoch": bytes(9), "about_seq": -1,
    }  # fmt: skip
    assert tuple(bad) == Entry._fields
    whole = (*entry, "bob", b"epoch...", 7)
    checks = ENTRY_CHECKS + EXTRA_CHECKS
    for name, check, value in zip(Entry._fields, checks, whole, strict=True):
        assert check(value), name
        assert not check(bad[name]), name


def test_what_a_message_says_is_the_end_of_it_everywhere() -> None:
    """Packed as an ENTRY, offered by a member over the bus, and given to the store."""
    about = Extra(to="bob", about_epoch=b"epoch...", about_seq=7)
    for offered, rest in (
        (SUBMISSION, ("", b"", 0)),
        (SUBMISSION._replace(extra=about), ("bob", b"epoch...", 7)),
    ):
        assert offered.content == (0, "text/plain", b"hi", *rest)
        packed = packing.pack_entry(committed(offered, b"epoch...", 1, 0, 5))
        assert packing.unpack_entry(packed).content == offered.content
        assert packing.unpack_entry(packed) == packing.unpack_server(packed)[0]
        assert packing.pack(packing.unpack_entry(packed)) == packed
        [submit] = bus_packing.MessageReader().feed(
            bus_packing.pack(messages.Submit(3, offered, []))
        )
        assert isinstance(submit, messages.Submit)
        assert type(submit.submission) is Submission
        assert submit == (3, offered, [])


def test_a_plain_message_is_packed_as_before_there_were_others() -> None:
    """A room's message has no bytes for fields that it does not use."""
    packed = packing.pack_entry(committed(SUBMISSION, b"epoch...", 1, 0, 5))
    assert packed[0] == 0x9D, "an array of the operation and twelve fields"
