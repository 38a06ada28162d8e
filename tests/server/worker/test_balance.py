"""When a worker sends clients away to other workers, and how many."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.server.worker.process.accepting.balance import SETTLE_S, SLACK, Balance
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient


def play(loads: list[int], over_s: float, seconds: int) -> list[list[int]]:
    """Return the loads after each second; each client sent away goes to the least loaded worker."""
    workers = [Balance(lambda: over_s) for _ in loads]
    played = []
    for now in range(seconds):
        for index, worker in enumerate(workers):
            others = [load for other, load in enumerate(loads) if other != index]
            leaving = worker.due(loads[index], others, float(now))
            assert leaving <= loads[index]
            loads[index] -= leaving
            for _ in range(leaving):
                loads[loads.index(min(loads))] += 1
        played.append(list(loads))
    return played


def test_all_of_one_become_a_share_for_each() -> None:
    played = play([1000, 0, 0, 0], 30.0, 300)
    assert max(played[-1]) - min(played[-1]) <= 4
    steps = [before[0] - after[0] for before, after in pairwise(played)]
    assert max(steps) <= 1000 / 30 + 1
    assert 1000 - played[40][0] > 400  # most of it within the configured time


def test_a_moment_is_not_enough() -> None:
    """Clients of a worker that has just ended are about to reconnect."""
    balance = Balance(lambda: 30.0)
    assert [balance.due(100, [0], float(now)) for now in range(int(SETTLE_S))] == [0] * int(
        SETTLE_S
    )
    assert balance.due(100, [100], SETTLE_S) == 0
    assert balance.due(100, [0], SETTLE_S + 1) == 0  # the period starts again


def test_few_more_are_left_alone() -> None:
    for loads in ([2 * SLACK, 0], [125, 75], [5], [0, 0]):
        before = list(loads)
        assert play(loads, 30.0, 60)[-1] == before


def test_zero_is_never() -> None:
    assert play([1000, 0], 0.0, 60)[-1] == [1000, 0]


async def test_who_is_logging_in_counts(cluster: Cluster) -> None:
    """A worker that is ahead while many log in sends nobody away, who would log in once more."""
    worker, other = cluster.workers[0], cluster.workers[1]
    worker.sweeps = False  # they share clients as well, by the real clock
    worker._balance = Balance(lambda: 30.0)
    clients = [await TestClient.login(worker, f"~client{n}") for n in range(3 * SLACK)]
    coming = [await TestClient.connect(other) for _ in clients]
    admission = worker.parts.services.budgets.admission

    def sent_away() -> int:
        """Return how many, over some seconds more than an imbalance has to last."""
        before = admission.authenticated
        for second in range(int(SETTLE_S) + 3):
            other._status.beat()  # it runs, however busy this machine is
            worker._share_clients(float(second))
        return before - admission.authenticated

    assert sent_away() == 0
    for client in coming:
        client.disconnect()
    await until(lambda: not other.parts.connections.sessions, "the end of the others")
    assert sent_away() > 0


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8))
def test_it_ends(loads: list[int]) -> None:
    """Clients are not sent back and forth."""
    played = play(loads, 10.0, 400)
    assert played[-1] == played[-50]
    assert sum(played[-1]) == sum(played[0])
