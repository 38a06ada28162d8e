"""The order in which users of a resource are served: half of it for light users."""

from __future__ import annotations

from collections import Counter

import pytest

from relay.server.worker.fair_queue import FairQueue

LIGHT_MAX = 4
LEAD_MAX = 8
ROUNDS = 200


@pytest.mark.parametrize("drained", [True, False])
def test_heavy_users_get_half_beside_light_ones_that_have_more(drained: bool) -> None:
    """A user is light by what is known of it when it begins to wait: it may have more."""
    queue: FairQueue[str] = FairQueue(quantum=LIGHT_MAX, light_max=LIGHT_MAX, lead_max=LEAD_MAX)
    queue.add("heavy", 0.0, 0)
    served: Counter[str] = Counter()
    finish = 0.0
    for _ in range(ROUNDS):
        queue.add("light", 0.0, LIGHT_MAX)  # another user each time
        user = queue.pop()
        served[user] += 1
        if user == "heavy":
            finish = queue.charge(user, finish, LIGHT_MAX, drained=False)
            queue.add(user, finish, LIGHT_MAX)
        else:
            queue.charge(user, 0.0, LIGHT_MAX, drained=drained)
    assert abs(served["heavy"] - ROUNDS / 2) <= LEAD_MAX


def test_light_users_get_half_beside_heavy_ones_that_have_little_left() -> None:
    """What those receive does not count for the light users' half."""
    queue: FairQueue[str] = FairQueue(quantum=LIGHT_MAX, light_max=LIGHT_MAX, lead_max=LEAD_MAX)
    served: Counter[str] = Counter()
    for _ in range(2 * ROUNDS):
        queue.add("heavy", 0.0, 0)  # not known: it counts as heavy
        queue.add("light", 0.0, LIGHT_MAX)
        user = queue.pop()
        served[user] += 1
        queue.charge(user, 0.0, LIGHT_MAX, drained=True)
    assert abs(served["light"] - ROUNDS) <= LEAD_MAX
