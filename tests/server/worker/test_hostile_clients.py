"""What one client does to a worker costs that client, and nobody else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import pytest

from relay.server.worker.connection.schedule import UNITS, UNITS_PER_TURN
from relay.server.worker.connection.session import Session
from relay.store import decide
from relay.wire.cipher import RecordType
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Ack, ClientEnvelope, Error, Refused, Send
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
UNKNOWN = msgpack.packb([99]) * 1023
"""A record of operations that nobody knows: 1,023 in 2 KiB."""


@contextmanager
def _shares(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Note how many units each visit to a session takes at once."""
    visits: list[int] = []
    work, run = Session._work, Session._run

    def working(self: Session, now: float) -> None:
        if not self._running:
            visits.append(0)
        work(self, now)

    def running(self: Session, envelope: ClientEnvelope) -> None:
        visits[-1] += UNITS.get(type(envelope), 1)
        run(self, envelope)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_work", working)
        patch.setattr(Session, "_run", running)
        yield visits


async def test_garbage_takes_its_turn(single: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cheap envelopes in masses (attack A16): a share at a time, and others come in between."""
    worker = single.workers[0]
    floods = [await TestClient.login(worker, f"flood{n}") for n in range(16)]
    honest = await TestClient.login(worker, "honest")
    await honest.join(LOG)
    with _shares(worker, monkeypatch) as visits:
        for flood in floods:
            flood.transport.write(b"".join(flood.sealed(UNKNOWN) for _ in range(20)))
        await floods[-1].expect(Error)
        honest.send(LOG, 1)
        await honest.acked(LOG, 1)
        answered = sum(len(flood.received) for flood in floods)
        assert answered < 16 * 20 * 1023, "the honest one waited for all of the garbage"
        for flood in floods:
            await flood.expect(Error, count=20 * 1023)
    assert max(visits) <= UNITS_PER_TURN + max(UNITS.values())
    assert not worker.parts.services.schedule.waiting


async def test_many_small_records_take_their_turn(
    single: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of nothing but pings are work, too: they are opened a share at a time."""
    worker = single.workers[0]
    flood = await TestClient.login(worker, "flood")
    honest = await TestClient.login(worker, "honest")
    session = single.session("flood")
    cipher = flood._connection._send
    flood.transport.write(b"".join(cipher.seal(RecordType.PING, b"x") for _ in range(20_000)))
    await until(lambda: worker.parts.services.schedule.waiting, "the flood to wait for its turn")
    assert session._connection._reader.pending, "all of it was opened at once"
    honest.send(LOG, 1)
    await honest.acked(LOG, 1)
    flood.send(LOG, 1)
    await flood.acked(LOG, 1)


async def test_old_counters_wait_in_their_own_lane(cluster: Cluster) -> None:
    """Repeats of long ago are dear (attack A2): each is answered, and new messages go first."""
    home, other = cluster.home(LOG), cluster.other(LOG)
    hostile = await TestClient.login(other, "hostile")
    honest = await TestClient.login(other, "honest")
    for start in range(1, 3001, 500):
        hostile.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in range(start, start + 500)])
        await hostile.acked(LOG, start + 499)
    hostile.received.clear()
    counters = random.Random(7).sample(range(1, 2900), 1000)
    hostile.send_envelopes(*[Send(LOG, n, 0, "", b"x") for n in counters])
    await hostile.expect(Ack)
    for counter in range(1, 6):
        honest.send(LOG, counter)
        await honest.acked(LOG, counter)
    answered = len([e for e in hostile.received if isinstance(e, Ack)])
    assert answered < 1000, "the honest one waited for all repeats"
    await hostile.expect(Ack, count=1000)
    acks = [(e.counter, e.seq) for e in hostile.received if isinstance(e, Ack)]
    assert acks == [(n, n) for n in counters], "each once, in order, as the original"
    hostile.send_envelopes(Send(LOG, 3001, 0, "", b"new"))
    await hostile.acked(LOG, 3001)
    assert not any(home.parts.home._submissions)


async def test_one_message_that_cannot_be_stored_is_refused_alone(
    single: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ids for new rooms are left (attack A5): rooms that exist go on, in the same commit."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.send(LOG, 1)
    await client.acked(LOG, 1)
    monkeypatch.setattr(decide, "LOGS_MAX", 0)
    client.send_envelopes(
        Send(LOG, 2, 0, "", b"before"),
        *[Send(f"new{n}", 1, 0, "", b"x") for n in range(20)],
        Send(LOG, 3, 0, "", b"after"),
    )
    await client.expect(Refused, count=20)
    refused = [e for e in client.received if isinstance(e, Refused)]
    assert {e.code for e in refused} == {ErrorCode.LIMIT}
    assert all("takes no new one" in e.text for e in refused)
    await client.expect(Ack, lambda e: e.counter == 3)


@pytest.mark.parametrize("held", [False, True])
async def test_the_reason_arrives_though_the_peer_still_writes(single: Cluster, held: bool) -> None:
    """A violation in a record (attack A18): what follows is read, so that no reset overtakes."""
    worker = single.workers[0]
    client = await TestClient.login(worker, "client")
    client.transport.pause_reading()
    if held:  # the server is not reading it when the violation is found
        client.send_envelopes(*[Send(LOG, n, 0, "", bytes(4096)) for n in range(1, 200)])
    client.transport.write(client._connection._send.seal(RecordType.TICKET, b""))
    for _ in range(40):
        client.transport.write(client.sealed(bytes(60_000)))
    await until(lambda: not client.transport.get_write_buffer_size(), "everything to be taken")
    client.transport.resume_reading()
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == CloseCode.PROTOCOL
    await client.gone(worker)
