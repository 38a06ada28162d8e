"""Copies of direct messages under way: which sender they count for."""

from __future__ import annotations

import itertools
from typing import NoReturn

from relay.chat.entries import Extra, Submission
from relay.chat.partition import partition_of
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.home.direct.copies import Copies
from relay.server.worker.process.messaging.copy_sender import CopySenders
from tests.support.workers import Cluster

NAMES = ("ann", "ann", "bob")


def _unused(*_: object) -> NoReturn:
    raise AssertionError("the test has no inboxes")


async def test_each_person_is_a_sender_as_long_as_anything_is_on_its_way(cluster: Cluster) -> None:
    """So users share the way to another worker fairly, as for messages to rooms."""
    first = "@to-0"
    home = cluster.home(first)
    second = next(
        log
        for log in (f"@to-{number}" for number in itertools.count(1))
        if cluster.home(log) is home and partition_of(log) != partition_of(first)
    )
    forward = cluster.other(first).parts.member.forward
    await cluster.kill(home.index)
    copies = Copies(
        send=_unused,
        reader_of=_unused,
        unpack=_unused,
        confirm=_unused,
        later=_unused,
        damaged=DamagedLogs(lambda: 0.0),
    )
    senders = CopySenders(copies, forward)
    for counter, (name, log) in enumerate(zip(NAMES, (first, second, first), strict=True), 1):
        extra = Extra(to=log[1:], origin_seq=counter)
        senders.send(Submission(log, name, b"", bytes(16), counter, 0, "", b"", extra=extra))
    assert {name: one.unanswered for name, one in senders.by_handle.items()} == {"ann": 2, "bob": 1}
    forward.give_up({partition_of(first)})
    assert {name: one.unanswered for name, one in senders.by_handle.items()} == {"ann": 1}
    forward.give_up({partition_of(second)})
    assert not senders.by_handle
