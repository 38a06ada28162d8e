"""How much of its file a partition's writer holds: by bytes, since peers choose how much it is."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Final

import pytest

from relay.chat.rooms import state as rooms
from relay.chat.rooms.events import Role
from relay.chat.rooms.state import Person, Room
from relay.store.committed import END_BYTES, LOGS_BYTES_MAX, UNPACKED
from relay.store.sqlite import SqlitePartition
from relay.store.state import LogEnd

LARGE = 1500
OURS: Final = [tracemalloc.Filter(True, pattern) for pattern in ("*/relay/*.py", __file__)]
"""Not what other threads of the test process allocate meanwhile."""


def packed_room(people: int) -> bytes:
    """Return the packed state of a room with so many members."""
    members = {
        f"a-rather-long-handle-{number:05}": Person(
            number.to_bytes(32, "big"), Role.MEMBER, seq=number
        )
        for number in range(1000, 1000 + people)
    }
    return rooms.pack(Room(1, 2, people=members))


def end_of(number: int, packed: bytes, *, decoded: bool) -> LogEnd:
    """Return the end of a log, with objects of its own."""
    own = bytes(bytearray(packed))
    state = rooms.unpack(own) if decoded else None
    epoch = (1 << 60 | number).to_bytes(8, "big")
    return LogEnd(
        number + 1000, epoch, number + 500, number + 600, 1 << 40 | number, 3, True, own, state
    )


@pytest.mark.parametrize("decoded", [True, False])
@pytest.mark.parametrize("people", [0, 1, 30, LARGE])
def test_no_more_is_held_than_the_limit(
    partition: SqlitePartition, people: int, decoded: bool
) -> None:
    opened = partition._opened
    assert opened is not None
    committed = opened.committed
    packed = packed_room(people) if people else b""
    each = END_BYTES + len(packed) * (UNPACKED if decoded else 1)
    count = LOGS_BYTES_MAX // each + 20
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            committed._remember_log(
                f"a-room-with-a-name-{number}", end_of(number, packed, decoded=decoded)
            )
        gc.collect()
        traced = tracemalloc.take_snapshot().filter_traces(OURS)
        held = sum([trace.size for trace in traced.traces])
    finally:
        tracemalloc.stop()
    assert len(committed.logs) == LOGS_BYTES_MAX // each
    assert f"a-room-with-a-name-{count - 1}" in committed.logs
    assert held <= committed.logs_bytes <= LOGS_BYTES_MAX


def test_what_is_replaced_counts_no_more(partition: SqlitePartition) -> None:
    """A room grows, and shrinks again: the sum is that of what is held."""
    opened = partition._opened
    assert opened is not None
    committed = opened.committed
    for people in (0, 30, LARGE, 1):
        committed._remember_log("lobby", end_of(1, packed_room(people), decoded=True))
    assert committed.logs_bytes == END_BYTES + UNPACKED * len(packed_room(1))


def test_one_that_is_larger_than_the_limit_is_held_alone(partition: SqlitePartition) -> None:
    opened = partition._opened
    assert opened is not None
    committed = opened.committed
    committed.logs_bytes_max = END_BYTES
    for name in ("lobby", "hall"):
        committed._remember_log(name, end_of(1, packed_room(30), decoded=True))
    assert list(committed.logs) == ["hall"]
