"""How long the private operation takes for valid and for invalid ciphertexts: reported,
alternating.

    pytest benchmarks/micro/test_rsa_answers.py

An attacker who could tell them apart by time would have an oracle. What is measured is the whole of
``PrivateKey.unwrap``, which draws its random answer first, whatever comes. Nothing is asserted:
a machine has noise, and OpenSSL versions differ; compare the medians, and the runs.
"""

from __future__ import annotations

import secrets
import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure.scale import Scale
from relay.wire.identity import generate_private_key
from tests.support.rsa_answers import KINDS, ciphertext

BITS = 3072
EACH = 2000


def test_answers(benchmark: BenchmarkFixture, scale: Scale) -> None:
    """Medians and quartiles of each kind, in µs, and how far the medians are apart."""
    benchmark.group = "RSA answers, valid and invalid, RSA-3072"
    key = generate_private_key(secrets.token_bytes, BITS)
    each = scale.pick(EACH, 20)
    taken: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def by_turns() -> None:
        for _ in range(each):
            for kind in KINDS:
                wrapped = ciphertext(kind, secrets.token_bytes(32), key.spki)
                began = time.perf_counter_ns()
                key.unwrap(wrapped)
                taken[kind].append(time.perf_counter_ns() - began)

    benchmark.pedantic(by_turns, rounds=1)  # type: ignore[no-untyped-call]
    medians = {kind: statistics.median(times) / 1000 for kind, times in taken.items()}
    for kind, times in taken.items():
        low, _, high = statistics.quantiles(times, n=4)
        name = kind.replace(" ", "_")
        benchmark.extra_info[f"{name}_us"] = round(medians[kind], 1)
        benchmark.extra_info[f"{name}_quartiles_us"] = [round(low / 1000, 1), round(high / 1000, 1)]
    spread = max(medians.values()) - min(medians.values())
    benchmark.extra_info["medians_apart_us"] = round(spread, 2)


pytestmark = pytest.mark.benchmark(timer=time.perf_counter)
