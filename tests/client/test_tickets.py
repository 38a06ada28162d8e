"""The tickets that a client holds: for the server with one key, for one use, for a limited time."""

from __future__ import annotations

from relay.client.tickets import HELD_MAX, LIFETIME_S_MAX, Tickets
from relay.secret import Secret
from relay.wire.tickets import ClientTicket


def ticket(number: int) -> ClientTicket:
    return ClientTicket(bytes([number]), Secret(bytes(32)))


def test_a_ticket_is_for_the_key_of_who_gave_it() -> None:
    """Another key is another server, whatever it claims: it gets no ticket."""
    held = Tickets()
    held.keep("one", ticket(1), 60.0, 0.0)
    assert held.take("other", 1.0) is None
    assert held.take("one", 1.0) == ticket(1)
    assert held.take("one", 1.0) is None, "it is used up"
    held.keep("one", ticket(2), 60.0, 0.0)
    held.keep("other", ticket(3), 60.0, 0.0)
    assert held.take("other", 1.0) == ticket(3)
    assert held.take("other", 1.0) is None, "the earlier ones are forgotten"


def test_few_are_held_and_none_for_ever() -> None:
    held = Tickets()
    for number in range(5):
        held.keep("one", ticket(number), 1e9, 0.0)
    assert held.take("one", LIFETIME_S_MAX - 1) == ticket(4)
    assert held.take("one", LIFETIME_S_MAX) is None
    assert HELD_MAX == 2
