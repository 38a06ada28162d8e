"""Connections over four workers: slow and burst arrival; one stopped, or killed half-way.

Target 13. Each connection has logged in and follows a room before it is counted.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.load.crowd import Arrive, Crowd, Leave, Plan, names
from benchmarks.measure import machine
from benchmarks.measure.machine import HOST
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of

WORKERS, CONNECTIONS = 4, 400
SLOW_S = 0.01
PATIENT = "600"
"""Seconds that the supervisor leaves a stopped worker alone."""


@pytest.mark.parametrize("trouble", ["none", "one stopped", "one killed half-way"])
@pytest.mark.parametrize("arrival", ["slow", "burst"])
def test_balance(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    arrival: str, trouble: str,
) -> None:  # fmt: skip
    """How many connections each worker has at last; the time is that of their arrival."""
    clients = scale.pick(CONNECTIONS, 40)
    benchmark.group = f"{clients} connections over {WORKERS} workers"
    every_s = SLOW_S if arrival == "slow" else 0.0
    data = tmp_path_factory.mktemp("balance") / "data"
    settings = {"server.worker_timeout_s": PATIENT}
    rounds: list[list[int]] = []
    # Worker 0 is the one that is stopped: nobody's name is to have its home there.
    everybody = (name for name in names(8 * clients) if partition_of(INBOX_PREFIX + name) % WORKERS)
    plan_names = tuple(islice(everybody, clients))
    with (
        MeasuredRelay(data, workers=WORKERS, cores=machine.ALL_CORES, settings=settings) as server,
        Crowd(Plan((HOST, server.port), server.log_at_home_on(1), plan_names)) as crowd,
    ):

        def away() -> None:
            crowd.obey(Leave())
            server.wait_until_empty()

        def arrive() -> None:
            half = clients // 2
            if trouble == "one killed half-way":
                crowd.obey(Arrive(every_s=every_s, until=half))
                server.kill(0)
                came = crowd.obey(Arrive(every_s=every_s, first=half))
            elif trouble == "one stopped":
                with server.stopped(0):
                    came = crowd.obey(Arrive(every_s=every_s))
            else:
                came = crowd.obey(Arrive(every_s=every_s))
            assert not came.missing, came
            assert not came.wrong, came.wrong
            rounds.append(sorted(server.connections_of(n) for n in range(WORKERS)))

        benchmark.pedantic(arrive, setup=away, rounds=scale.rounds)  # type: ignore[no-untyped-call]
    extra: dict[str, Any] = {"arrival": arrival, "trouble": trouble, "connections": rounds}
    counted = [one[1:] if trouble == "one stopped" else one for one in rounds]
    extra["most_per_least"] = [round(one[-1] / max(one[0], 1), 2) for one in counted]
    benchmark.extra_info |= extra
