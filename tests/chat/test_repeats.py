"""The skip list over a producer's entries."""

from __future__ import annotations

import pytest

from relay.chat.repeats import Descent, Stack, below, pushed, rebuilt


class Chain:
    """One producer's entries: counter n is the entry with seq 10 * n."""

    def __init__(self, last: int) -> None:
        self.links: dict[int, tuple[int, int]] = {}
        self.looked_up = 0
        self.stack: Stack = ()
        self.last = last
        for counter in range(1, last + 1):
            chain, jump, self.stack = pushed(self.stack, counter, 10 * counter)
            self.links[10 * counter] = (chain, jump)

    def look_up(self, seq: int) -> tuple[int, int] | None:
        self.looked_up += 1
        return self.links.get(seq)

    def descent(self) -> Descent:
        return Descent(self.last, self.stack[-1])


def test_links_lead_where_they_say() -> None:
    chain = Chain(300)
    for counter in range(1, 301):
        assert chain.links[10 * counter] == (10 * (counter - 1), 10 * below(counter))


@pytest.mark.parametrize("last", [1, 2, 3, 12, 127, 128, 300])
def test_a_stack_read_back_is_the_stack(last: int) -> None:
    chain = Chain(last)
    assert rebuilt(last, 10 * last, chain.look_up) == chain.stack
    assert len(chain.stack) == last.bit_count()


@pytest.mark.parametrize("last", [1, 2, 63, 64, 65, 300])
def test_finds_every_counter_from_every_last_one(last: int) -> None:
    chain = Chain(last)
    for wanted in range(1, last + 1):
        assert chain.descent().find(wanted, chain.look_up) == 10 * wanted


def test_one_descent_finds_counters_in_any_order() -> None:
    chain = Chain(300)
    descent = chain.descent()
    for wanted in (300, 1, 2, 150, 149, 299, 1, 300):
        assert descent.find(wanted, chain.look_up) == 10 * wanted


def test_a_single_repeat_takes_few_steps_however_old() -> None:
    chain = Chain(100_000)
    for wanted in (1, 99_999, 65_535, 65_536, 12_345):
        chain.looked_up = 0
        chain.descent().find(wanted, chain.look_up)
        assert chain.looked_up < 17 * 17


def test_a_long_resend_takes_few_steps_each() -> None:
    chain = Chain(100_000)
    descent = chain.descent()
    for wanted in range(90_001, 100_001):
        assert descent.find(wanted, chain.look_up) == 10 * wanted
    assert chain.looked_up < 3 * 10_000


def test_what_is_no_longer_kept_is_not_found_and_breaks_nothing() -> None:
    chain = Chain(100)
    for counter in range(1, 61):
        del chain.links[10 * counter]
    descent = chain.descent()
    for wanted in range(1, 60):
        assert descent.find(wanted, chain.look_up) == 0
    for wanted in range(61, 101):
        assert descent.find(wanted, chain.look_up) == 10 * wanted
    stack = rebuilt(100, 1000, chain.look_up)  # 100 = 64 + 32 + 4
    assert stack == (640, 960, 1000)
    assert rebuilt(65, 650, {650: (0, 0)}.get) == (0, 650)
