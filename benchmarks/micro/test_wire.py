"""The cost of sealing, opening, packing and unpacking, by size.

pytest benchmarks/micro/test_wire.py
"""

from __future__ import annotations

import secrets
from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from relay.chat.entries import NO_EPOCH, Kind
from relay.server.worker.delivery.batch import RunningBatch
from relay.wire.cipher import ReceiveCipher, RecordLimits, RecordType, SendCipher
from relay.wire.envelopes import Ack, Live, Send
from relay.wire.packing import pack, pack_entry, unpack_client, unpack_server

SIZES = [64, 200, 1024, 4096, 16_384, 65_536]
BODY = secrets.token_bytes(200)
EPOCH = b"epoch..."
LIMITLESS = RecordLimits(
    records_max=2**47, bytes_max=2**62, age_s_max=1e9,
    receive_records_max=2**47, receive_bytes_max=2**62,
)  # fmt: skip
"""A benchmark seals more under one key than a connection may."""
ENTRY = pack_entry(
    ("lobby", EPOCH, 1000, 999, 1_790_000_000_000, "alice", b"", b"producer", 77,
     int(Kind.MESSAGE), "", BODY)
)  # fmt: skip
SEND = Send("lobby", 77, 0, "", BODY)


@pytest.mark.parametrize("size", SIZES)
def test_seal(benchmark: BenchmarkFixture, size: int) -> None:
    benchmark.group = "seal a record, bytes of content"
    cipher = SendCipher(bytes(32), LIMITLESS, 0.0)
    content = secrets.token_bytes(size)
    sealed = benchmark(cipher.seal, RecordType.APP, content)
    assert len(sealed) > size + 20


@pytest.mark.parametrize("size", SIZES)
def test_open(benchmark: BenchmarkFixture, size: int) -> None:
    benchmark.group = "open a record, bytes of content"
    sealing = SendCipher(bytes(32), LIMITLESS, 0.0)
    opening = ReceiveCipher(bytes(32), LIMITLESS, 0.0)
    content = secrets.token_bytes(size)
    frame = sealing.seal(RecordType.APP, content)

    def again() -> tuple[int, bytes]:
        opening.sequence = 0
        return opening.open(frame)

    assert benchmark(again) == (RecordType.APP, content)


def test_pack_send(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "pack an envelope"
    assert unpack_client(benchmark(pack, SEND)) == [SEND]


def test_pack_ack(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "pack an envelope"
    ack = Ack("lobby", 77, EPOCH, 1000)
    assert unpack_server(benchmark(pack, ack)) == [ack]


@pytest.mark.parametrize("envelopes", [1, 64])
def test_unpack_sends(benchmark: BenchmarkFixture, envelopes: int) -> None:
    benchmark.group = "unpack and check a record of envelopes"
    content = pack(SEND) * envelopes
    assert benchmark(unpack_client, content) == [SEND] * envelopes


@pytest.mark.parametrize("envelopes", [1, 64])
def test_unpack_entries(benchmark: BenchmarkFixture, envelopes: int) -> None:
    benchmark.group = "unpack and check a record of envelopes"
    assert len(benchmark(unpack_server, ENTRY * envelopes)) == envelopes


def test_unpack_live(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "unpack and check a record of envelopes"
    live = Live("lobby", EPOCH, 1000)
    assert benchmark(unpack_server, pack(live)) == [live]


@pytest.mark.parametrize("entries", [1, 10, 100])
def test_assemble_batch(benchmark: BenchmarkFixture, entries: int) -> None:
    """Joins the pieces of one turn to the content that all members share."""
    benchmark.group = "assemble a log's batch, entries"
    numbers = count(1)

    def assemble() -> int:
        running = RunningBatch()
        for _ in range(entries):
            seq = next(numbers)
            running.add(seq - 1, EPOCH, seq, 1, ENTRY, False)
        return sum(batch.count for batch in running.close("lobby", NO_EPOCH))

    assert benchmark(assemble) == entries
