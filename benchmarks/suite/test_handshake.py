"""The cost of a handshake with login for the server: a full one against the bare RSA operation, and
a resumed one against the full one. Targets 8 and 9.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.machine import HOST
from benchmarks.measure.scale import Scale
from benchmarks.servers.relay import MeasuredRelay
from relay.wire.identity import generate_private_key, parse_spki
from tests.support.processes import Processes
from tests.support.raw import RawClient

BITS = 3072
LOGINS = 300
pytestmark = pytest.mark.benchmark(timer=server_cpu)
Watch = Callable[[Processes], None]


def test_login(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    """Connect, shake hands, log in by a device key, drop: one after another, one worker."""
    benchmark.group = "full handshake with login, RSA-3072: server CPU"
    logins = scale.pick(LOGINS, 20)
    data = tmp_path_factory.mktemp("handshake") / "data"
    with MeasuredRelay(data, workers=1, cores=machine.SERVER_CORES) as server:
        watch(server.processes)
        spent: list[float] = []
        first = RawClient(HOST, server.port, "visitor")
        first.close()
        assert bits_of(first.spki) == BITS

        def log_in() -> None:
            before = server.processes()
            for _ in range(logins):
                RawClient(HOST, server.port, "visitor", registered=True).close()
            spent.append(server.processes() - before)

        benchmark.pedantic(  # type: ignore[no-untyped-call]
            log_in, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds
        )
    bare_us = bare_rsa_us(logins)
    login_us = sorted(spent[-scale.rounds :])[scale.rounds // 2] / logins * 1e6
    benchmark.extra_info |= {
        "cpu_us_per_login": round(login_us, 1),
        "bare_rsa_us": round(bare_us, 1),
        "ratio_to_bare_rsa": round(login_us / bare_us, 2),
    }


def test_resumed_login(
    benchmark: BenchmarkFixture, tmp_path_factory: pytest.TempPathFactory, scale: Scale,
    watch: Watch,
) -> None:  # fmt: skip
    """By ticket and in full, alternating, as above: each connection's ticket is the next one's."""
    benchmark.group = "resumed handshake with login against a full one, RSA-3072: server CPU"
    logins = scale.pick(LOGINS, 20)
    data = tmp_path_factory.mktemp("resumed") / "data"
    with MeasuredRelay(data, workers=1, cores=machine.SERVER_CORES) as server:
        watch(server.processes)
        spent: dict[bool, list[float]] = {False: [], True: []}
        first = RawClient(HOST, server.port, "visitor")
        first.close()
        assert bits_of(first.spki) == BITS
        ticket = first.ticket

        def log_in(resuming: bool) -> None:
            nonlocal ticket
            before = server.processes()
            for _ in range(logins):
                offered = ticket if resuming else None
                one = RawClient(HOST, server.port, "visitor", registered=True, ticket=offered)
                one.close()
                assert one.resumed == resuming
                ticket = one.ticket
            spent[resuming].append(server.processes() - before)

        def both() -> None:
            log_in(resuming=False)
            log_in(resuming=True)

        benchmark.pedantic(  # type: ignore[no-untyped-call]
            both, rounds=scale.rounds, warmup_rounds=scale.warmup_rounds
        )
    full_us, resumed_us = (
        sorted(spent[kind][-scale.rounds :])[scale.rounds // 2] / logins * 1e6
        for kind in (False, True)
    )
    benchmark.extra_info |= {
        "full_us": round(full_us, 1),
        "resumed_us": round(resumed_us, 1),
        "ratio": round(resumed_us / full_us, 3),
    }


def bits_of(spki: bytes) -> int:
    """Return the size of a server's key: the tests' relays have smaller ones than users'."""
    key = load_der_public_key(spki)
    assert isinstance(key, RSAPublicKey)
    return key.key_size


def bare_rsa_us(count: int) -> float:
    """Return the CPU µs of one RSA-OAEP private operation, taken in the same minute."""
    key = generate_private_key(secrets.token_bytes, BITS)
    wrapped = parse_spki(key.spki).wrap(bytes(32))
    key.unwrap(wrapped)
    before = time.thread_time()
    for _ in range(count):
        key.unwrap(wrapped)
    return (time.thread_time() - before) / count * 1e6
