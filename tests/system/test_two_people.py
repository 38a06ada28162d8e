"""Two users chat; a third reads the history; send and tail agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Relay, run_relay
from tests.support.people import Person
from tests.support.tails import Tail


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for all; each test uses names and a room of its own."""
    with Relay(tmp_path_factory.mktemp("relay") / "data") as running:
        yield running


def test_two_people_talk_and_a_third_sees_history(relay: Relay, tmp_path: Path) -> None:
    """Both directions, live, and the history before the join."""
    with (
        Person(relay.address, "alice", "lobby", tmp_path) as alice,
        Person(relay.address, "bob", "lobby", tmp_path) as bob,
    ):
        alice.is_told("lobby")
        bob.is_told("lobby")
        alice.types("hello bob")
        bob.sees("hello bob")
        bob.types("hello alice")
        alice.sees("hello alice")
        with Person(relay.address, "carol", "lobby", tmp_path) as carol:
            carol.sees("hello bob", "hello alice")
            order = [line for line in carol.shown if "hello" in line]
            assert "hello bob" in order[0]
            assert "alice" in order[0]


def test_leaving_delivers_what_was_typed(relay: Relay, tmp_path: Path) -> None:
    """End of input waits for every acknowledgement, then exits with 0."""
    with Person(relay.address, "dora", "den", tmp_path) as dora:
        dora.types(*[f"line {n}" for n in range(50)])
        assert dora.leave() == 0
    with Tail(relay.address, "den", "--since", "0") as tail:
        assert tail.has(50) == [f"line {n}" for n in range(50)]


def test_a_thousand_lines_sent_are_a_thousand_lines_read(relay: Relay) -> None:
    """``relay send`` of 1,000 lines and ``relay tail --since 0`` agree exactly."""
    lines = [f"{n}: søme text ✓" for n in range(1000)]
    sent = run_relay("send", relay.address, "bulk", text="\n".join(lines) + "\n")
    assert sent.returncode == 0, sent.stderr
    with Tail(relay.address, "bulk", "--since", "0") as tail:
        assert tail.has(1000) == lines
        assert [e["seq"] for e in tail.entries] == list(range(2, 1002))


def test_anothers_name_is_refused(relay: Relay, tmp_path: Path) -> None:
    """From another machine with another key, whether the owner is connected or not."""
    elsewhere = {"RELAY_KEYS": str(tmp_path / "elsewhere")}
    for _ in range(2):
        with Person(relay.address, "erin", "hall", tmp_path) as erin:
            erin.is_told("hall")
            other = run_relay("send", relay.address, "hall", "hi", "--name", "erin", env=elsewhere)
            assert other.returncode == 1
            assert "erin" in other.stderr
            assert "belongs to somebody else" in other.stderr
            assert "Traceback" not in other.stderr
    assert not list((tmp_path / "elsewhere").rglob("*.key")), "the attempt left something behind"
