"""The vocabulary: what crosses the network and the disk keeps its order and its numbers."""

from __future__ import annotations

from relay.chat.entries import NO_EPOCH, Cursor, Entry, GapReason, Head, Kind, Submission
from relay.limits import EPOCH_BYTES


def test_the_order_of_an_entrys_fields_is_the_protocols() -> None:
    assert Entry._fields == (
        "log", "epoch", "seq", "prev", "time_ms", "sender", "key_id", "producer", "counter",
        "kind", "content_type", "body",
    )  # fmt: skip


def test_a_submission_has_what_the_sender_decides() -> None:
    assert set(Entry._fields) - set(Submission._fields) == {"epoch", "seq", "prev", "time_ms"}
    assert set(Submission._fields) < set(Entry._fields)


def test_numbers_are_the_protocols() -> None:
    assert [(kind.name, kind.value) for kind in Kind] == [
        ("MESSAGE", 0),
        ("EDIT", 1),
        ("REDACTION", 2),
        ("SYSTEM", 3),
    ]
    assert [(reason.name, reason.value) for reason in GapReason] == [
        ("EPOCH", 1),
        ("AHEAD", 2),
        ("RETENTION", 3),
    ]


def test_no_epoch_has_the_length_of_one() -> None:
    assert bytes(EPOCH_BYTES) == NO_EPOCH
    assert tuple(Head(NO_EPOCH, 0)) == tuple(Cursor(NO_EPOCH, 0))
