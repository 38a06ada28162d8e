"""relay.client.backoff."""

from __future__ import annotations

from relay.client.backoff import FIRST_S, LEAST_S, MAX_S, RETRY_AFTER_S_MAX, STABLE_S, Backoff


def test_the_ceiling_doubles_up_to_its_bound() -> None:
    """With the highest jitter; with the lowest there is still a delay."""
    highest = Backoff(lambda: 1.0)
    delays = [highest.next_delay(0.0) for _ in range(20)]
    assert delays[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert delays[-1] == MAX_S
    assert Backoff(lambda: 0.0).next_delay(0.0) == LEAST_S


def test_the_servers_wish_is_the_least() -> None:
    """The delay is at least retry_after, with clients spread after it."""
    assert Backoff(lambda: 0.0).next_delay(0.0, 10.0) >= 10.0
    assert Backoff(lambda: 1.0).next_delay(0.0, 10.0) == 12.5


def test_a_server_sends_nobody_away_for_hours() -> None:
    """However it asks: 65,535 s is the greatest that a close can hold."""
    assert Backoff(lambda: 1.0).next_delay(0.0, 65_535.0) == 1.25 * RETRY_AFTER_S_MAX


def test_only_a_stable_connection_ends_it() -> None:
    """A server that accepts and drops at once is not retried faster and faster."""
    backoff = Backoff(lambda: 1.0)
    backoff.next_delay(0.0)
    backoff.online(1.0)
    assert backoff.next_delay(1.0 + STABLE_S / 2) == 2 * FIRST_S
    backoff.online(10.0)
    assert backoff.next_delay(10.0 + STABLE_S) == FIRST_S
