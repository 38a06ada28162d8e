"""How much of a contended processor the crowd gets, and that nobody else waits while it rests."""

from __future__ import annotations

import time
from pathlib import Path

import msgpack

from relay.limit_settings import Limits
from relay.server.worker.connection.schedule import SLICE_S
from relay.server.worker.process.pace import (
    CROWD_LEAST,
    LEAST,
    REST_MOST_S,
    SEEN_S,
    SHORT_SLICE_S,
    Pace,
)
from relay.wire.envelopes import Ack, Error
from tests.support.workers import Cluster, TestClient

LOG = "lobby"
UNKNOWN = msgpack.packb([99]) * 1023
FLOODS = 2 * CROWD_LEAST
RECORDS = 1


def test_nobody_rests_while_the_processor_is_there() -> None:
    """A turn that took about as long as it had the processor is no sign of anything."""
    pace = Pace()
    for _ in range(1000):
        pace.served(5.0, SEEN_S * 1.2, SEEN_S, CROWD_LEAST)
    assert pace.part == 1.0
    assert pace.until == 0.0
    assert pace.slice_s == SLICE_S


def test_the_crowd_rests_when_the_processor_is_dear() -> None:
    """It has less with every look, never less than its least part, and short slices."""
    pace = Pace()
    parts = []
    for _ in range(20):
        pace.served(5.0, SEEN_S * 3, SEEN_S, CROWD_LEAST)
        parts.append(pace.part)
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == LEAST
    assert pace.slice_s == SHORT_SLICE_S
    assert pace.until == 5.0 + min(SEEN_S * (1 / LEAST - 1), REST_MOST_S)


def test_a_long_turn_makes_no_long_rest() -> None:
    """Something else has made it long: the crowd is not to blame."""
    pace = Pace()
    pace.served(5.0, 3.0, 1.0, CROWD_LEAST)
    assert pace.until == 5.0 + REST_MOST_S


def test_the_crowd_has_all_of_it_again_in_the_end() -> None:
    """The others have gone: its part grows, and the rests with it become short, and none."""
    pace = Pace()
    for _ in range(20):
        pace.served(5.0, SEEN_S * 3, SEEN_S, CROWD_LEAST)
    rests = []
    while pace.part < 1.0:
        pace.served(5.0, SEEN_S, SEEN_S, CROWD_LEAST)
        rests.append(pace.until - 5.0)
    assert rests == sorted(rests, reverse=True)
    until = pace.until
    pace.served(9.0, SEEN_S, SEEN_S, CROWD_LEAST)
    assert pace.until == until


def test_nobody_rests_where_few_wait() -> None:
    """They are somebody's bulk load: short slices would be dearer, and gain little."""
    pace = Pace()
    pace.served(5.0, SEEN_S * 3, SEEN_S, CROWD_LEAST)
    until = pace.until
    assert until > 5.0
    pace.served(6.0, SEEN_S * 3, SEEN_S, CROWD_LEAST - 1)
    assert pace.part == 1.0
    assert pace.slice_s == SLICE_S
    assert pace.until == until


class Dear:
    """A processor that others have most of the time. ``held`` ends that."""

    def __init__(self) -> None:
        self.held = True
        self._cpu = 0.0
        self._at = time.monotonic()

    def cpu_clock(self) -> float:
        now = time.monotonic()
        self._cpu += (now - self._at) * (0.2 if self.held else 1.0)
        self._at = now
        return self._cpu


async def test_who_asks_for_little_does_not_wait_for_the_rests(tmp_path: Path) -> None:
    """All turns of the crowd are followed by a rest, and a message is stored in between."""
    dear = Dear()
    needs: dict[str, object] = {"cpu_clock": dear.cpu_clock}
    async with Cluster(tmp_path, 1, needs=needs, limits=Limits(waste_per_s=0)) as single:
        worker = single.workers[0]
        pace = worker.parts.turn.pace
        floods = [await TestClient.login(worker, f"flood{n}") for n in range(FLOODS)]
        honest = await TestClient.login(worker, "honest")
        await honest.join(LOG)
        honest.send(LOG, 1)
        await honest.acked(LOG, 1)
        for flood in floods:
            flood.transport.write(b"".join(flood.sealed(UNKNOWN) for _ in range(RECORDS)))
        counter = 1
        while pace.part != LEAST:  # it slows down for who asks for little
            counter += 1
            honest.send(LOG, counter)
            await honest.acked(LOG, counter)
        answered = sum(len(flood.received) for flood in floods)
        assert answered < FLOODS * RECORDS * 1023, "the honest one waited for all of it"
        assert [type(one) for one in honest.received].count(Ack) == counter
        dear.held = False
        for flood in floods:  # nobody is forgotten in a rest
            await flood.expect(Error, count=RECORDS * 1023)
