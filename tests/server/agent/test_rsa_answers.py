"""Answers of the key agent do not reveal whether a ciphertext was valid.

Tested here: length, distribution, repetition, counters, log. How long each kind takes is measured
and printed, not asserted: ``pytest benchmarks/micro/test_rsa_answers.py``.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from relay.server.agent.client import AgentClient
from tests.server.agent.test_agent import Agent
from tests.support.rsa_answers import KINDS, ciphertext

EACH = 100
BITS = EACH * 32 * 8


async def test_every_kind_gets_an_answer_of_the_same_form(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests of all kinds alternate on the real socket: only the secret itself differs."""
    agent = Agent(tmp_path / "agent.sock")
    service = await agent.start()
    client = AgentClient(agent.path)
    await client.connect()
    caplog.set_level(logging.DEBUG, "relay")
    answers: dict[str, list[bytes]] = {kind: [] for kind in KINDS}
    counted: list[tuple[int, int]] = [(service.unwrapped, service.turned_away)]
    sent: list[bytes] = []
    for _ in range(EACH):
        for kind in KINDS:
            secret = secrets.token_bytes(32)
            if kind == "valid":
                sent.append(secret)
            answers[kind].append(await client.unwrap(ciphertext(kind, secret), "192.0.2.1"))
            counted.append((service.unwrapped, service.turned_away))
    client.close()
    service.close()

    assert answers["valid"] == sent
    assert all(after == (before[0] + 1, 0) for before, after in pairwise(counted))
    assert not [record for record in caplog.records if record.name.startswith("relay")]
    every = [answer for kind in KINDS for answer in answers[kind]]
    assert {len(answer) for answer in every} == {32}
    assert len(set(every)) == len(every), "an answer was repeated"
    for kind in KINDS:
        looks_random(b"".join(answers[kind]), kind)


def looks_random(data: bytes, kind: str) -> None:
    """Check that bits and bytes are distributed as in random data: chance exceeds 8 standard
    deviations once in 10^15 runs.
    """
    ones = sum(byte.bit_count() for byte in data)
    deviation = (BITS / 4) ** 0.5
    assert abs(ones - BITS / 2) < 8 * deviation, kind
    expected = len(data) / 256
    squares = sum((Counter(data)[byte] - expected) ** 2 / expected for byte in range(256))
    assert abs(squares - 255) < 8 * (2 * 255) ** 0.5, kind
