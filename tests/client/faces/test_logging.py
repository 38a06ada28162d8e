"""What the clients log: connections and rooms at DEBUG, never a body or a secret."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from tests.client.faces.adapters import Face
from tests.support.cluster import Relay
from tests.support.programs import run_program

Connect = Callable[..., Face]


def test_debug_lines_tell_what_happens(
    face: Connect, relay: Relay, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With loggers below relay.client, and at no other level."""
    with caplog.at_level(logging.DEBUG, logger="relay.client"):
        one = face(relay.address, "logger")
        one.connect()
        one.join(room)
        one.send(room, "the body of a message")
        one.leave(room)
        secret = one.client.identity.secret
        one.close()
    ours = [record for record in caplog.records if record.name.startswith("relay.client.")]
    assert {record.levelno for record in ours} == {logging.DEBUG}
    lines = [record.getMessage() for record in ours]
    for wanted in ("logger is online", f"joining {room}", f"in {room}, from 0 of 0",
                   f"leaving {room}", "logger is closed"):  # fmt: skip
        assert wanted in lines
    everything = "\n".join(lines)
    assert "the body" not in everything
    assert secret.hex() not in everything
    assert repr(bytes(secret))[2:-1] not in everything


def test_nothing_is_printed_unless_asked_for(relay: Relay, room: str) -> None:
    """Without any handler, and below a root logger at DEBUG that has none of its own."""
    program = (
        "import logging, sys; logging.getLogger().setLevel('DEBUG')\n"
        "from relay import BlockingClient\n"
        f"with BlockingClient(sys.argv[1]) as client: client.send({room!r}, 'x')"
    )
    done = run_program(program, relay.address)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
