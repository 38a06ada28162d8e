"""The cost of each step of a full handshake, server and client, and of the bare RSA operation.

    pytest benchmarks/micro/test_handshake_steps.py

Nothing is sent: both ends are sans-I/O. The RSA private operation belongs to the key agent, the
other server steps to a worker.
"""

from __future__ import annotations

import secrets

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from relay.wire.handshake import ClientHandshake, ServerHandshake
from relay.wire.identity import PrivateKey, generate_private_key

BITS = 3072
ROUNDS = 200


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return generate_private_key(secrets.token_bytes, BITS)


class Pair:
    """A handshake in progress, both ends."""

    def __init__(self, key: PrivateKey) -> None:
        self.key = key
        self.client = ClientHandshake(secrets.token_bytes, 1)
        self.server = ServerHandshake(secrets.token_bytes, key.spki, 0)

    def client_key(self) -> bytes:
        """Go as far as the client's answer to the hello."""
        self.client.receive_hello(self.server.server_hello())
        self.client.prepare_key()
        return self.client.client_key()

    def wrapped(self) -> bytes:
        """Go as far as the ciphertext for the key agent."""
        ciphertext = self.server.receive_key(self.client_key(), BITS // 8)
        assert ciphertext is not None
        return ciphertext


def test_client_answers_hello(benchmark: BenchmarkFixture, key: PrivateKey) -> None:
    """X25519, ML-KEM key generation, RSA encryption."""
    benchmark.group = "handshake, client"

    def setup() -> tuple[tuple[Pair], dict[str, object]]:
        return (Pair(key),), {}

    benchmark.pedantic(Pair.client_key, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def test_server_takes_client_key(benchmark: BenchmarkFixture, key: PrivateKey) -> None:
    """Checks only."""
    benchmark.group = "handshake, server"

    def setup() -> tuple[tuple[ServerHandshake, bytes], dict[str, object]]:
        pair = Pair(key)
        return (pair.server, pair.client_key()), {}

    def take(server: ServerHandshake, whole: bytes) -> bytes | None:
        return server.receive_key(whole, BITS // 8)

    benchmark.pedantic(take, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def test_agent_unwraps(benchmark: BenchmarkFixture, key: PrivateKey) -> None:
    """The bare RSA private operation: the floor of target 8."""
    benchmark.group = "handshake, server"
    wrapped = Pair(key).wrapped()
    assert len(benchmark(key.unwrap, wrapped)) == 32


def test_server_finishes(benchmark: BenchmarkFixture, key: PrivateKey) -> None:
    """X25519, ML-KEM encapsulation, key schedule, the server's confirmation."""
    benchmark.group = "handshake, server"

    def setup() -> tuple[tuple[ServerHandshake, bytes], dict[str, object]]:
        pair = Pair(key)
        return (pair.server, key.unwrap(pair.wrapped())), {}

    benchmark.pedantic(ServerHandshake.finish, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def test_client_finishes(benchmark: BenchmarkFixture, key: PrivateKey) -> None:
    """X25519, ML-KEM decapsulation, key schedule, both confirmations."""
    benchmark.group = "handshake, client"

    def setup() -> tuple[tuple[ClientHandshake, bytes], dict[str, object]]:
        pair = Pair(key)
        return (pair.client, pair.server.finish(key.unwrap(pair.wrapped()))), {}

    benchmark.pedantic(ClientHandshake.receive_finished, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def test_server_checks_client(benchmark: BenchmarkFixture, key: PrivateKey) -> None:
    """The client's confirmation, the record keys."""
    benchmark.group = "handshake, server"

    def setup() -> tuple[tuple[ServerHandshake, bytes], dict[str, object]]:
        pair = Pair(key)
        finished = pair.server.finish(key.unwrap(pair.wrapped()))
        reply, _ = pair.client.receive_finished(finished)
        return (pair.server, reply), {}

    benchmark.pedantic(ServerHandshake.receive_finished, setup=setup, rounds=ROUNDS)  # type: ignore[no-untyped-call]
