from __future__ import annotations

import pytest

from loadtest.capacity import PRECISION, Finder, Step

OBJECTIVE_MS = 100.0


def step(users: int, p99_ms: float, saturated: bool = False) -> Step:
    return Step(users, p99_ms, 1.0, 10.0, saturated)


def search(finder: Finder, knee: int) -> None:
    for _ in range(100):
        p99_ms = 5.0 if finder.users <= knee else 500.0
        if not finder.measured(step(finder.users, p99_ms)):
            return
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("knee", [1, 2, 49, 50, 51, 99, 100, 317, 5000])
def test_it_ends_at_the_knee(knee: int) -> None:
    finder = Finder(50, OBJECTIVE_MS)
    search(finder, knee)
    assert finder.best is not None
    assert finder.worst is not None
    assert finder.best.users <= knee < finder.worst.users
    assert finder.worst.users - finder.best.users <= max(1, finder.best.users * PRECISION)


def test_nothing_is_good_enough() -> None:
    finder = Finder(50, OBJECTIVE_MS)
    search(finder, 0)
    assert finder.best is None
    assert finder.worst is not None
    assert finder.worst.users == 1


@pytest.mark.parametrize(
    "hidden",
    [
        Step(50, 0.0, 0.0, 0.0, saturated=False),
        Step(50, 5.0, 1.0, 10.0, saturated=False, fell_behind=True),
    ],
    ids=["nothing was delivered live", "most was caught up on"],
)
def test_a_step_that_timed_too_little_is_not_good(hidden: Step) -> None:
    assert not hidden.good(OBJECTIVE_MS)


def test_one_hiccup_is_not_the_knee() -> None:
    finder = Finder(50, OBJECTIVE_MS)
    assert finder.measured(step(50, 900.0))
    assert finder.users == 50
    assert finder.measured(step(50, 5.0))
    assert finder.users == 100
    assert finder.worst is None


def test_a_saturated_generator_cannot_tell() -> None:
    finder = Finder(50, OBJECTIVE_MS)
    assert finder.measured(step(50, 5.0, saturated=True))
    assert finder.measured(step(50, 5.0, saturated=True))
    assert finder.best is None
    assert finder.users < 50
