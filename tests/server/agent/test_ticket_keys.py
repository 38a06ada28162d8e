"""The keys that seal tickets: how many exist, and when there is none."""

from __future__ import annotations

from relay.limits import TICKET_KEYS_MAX
from relay.server.agent.ticket_keys import LIFETIME_S, ROTATE_S, TicketKeyMaker


class Register:
    """Returns generations, or None while a stopped worker holds a lock on it."""

    def __init__(self) -> None:
        self.generation: int | None = 0

    def begin(self) -> int | None:
        self.generation = None if self.generation is None else self.generation + 1
        return self.generation


def test_keys_that_open_nothing_any_more_are_dropped() -> None:
    now = 0.0
    maker = TicketKeyMaker(Register().begin, bytes, lambda: now)
    for number in range(1, 10):
        assert maker.rotate()
        assert not maker.rotate()
        in_use = min(number, int(LIFETIME_S / ROTATE_S))
        assert [key.generation for key in maker.keys] == list(range(number + 1))[-in_use:]
        now += ROTATE_S


def test_agents_that_die_again_and_again_pass_on_no_more_than_workers_hold() -> None:
    """Each agent makes a key of its own, and earlier keys stay valid."""
    register = Register()
    maker = TicketKeyMaker(register.begin, bytes, lambda: 1.0)
    maker.rotate()
    for _ in range(2 * TICKET_KEYS_MAX):
        maker = TicketKeyMaker(register.begin, bytes, lambda: 1.0, kept=maker.keys)
        assert maker.rotate()
    latest = register.generation
    assert latest is not None
    assert [key.generation for key in maker.keys] == [
        *range(latest - TICKET_KEYS_MAX + 1, latest + 1)
    ]


def test_a_register_that_cannot_be_had_now_is_tried_again() -> None:
    """Without the register a ticket could be used twice: there is no key until it is available."""
    register = Register()
    register.generation = None
    told: list[object] = []
    maker = TicketKeyMaker(register.begin, bytes, lambda: 1.0, told.append)
    assert not maker.rotate()
    assert (maker.keys, told) == ([], [])
    register.generation = 6
    assert maker.rotate()
    assert [key.generation for key in maker.keys] == [7]
    assert told == [maker.keys]
