"""Names over several workers (invariant "Presence is derived"): one holder, ghosts replaced,
nothing granted too early.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from pathlib import Path

import pytest

from relay.bus.messages import Batch, Claim, Claimed, Event, Evict, Message, Submit
from relay.chat.entries import Submission
from relay.chat.names import INBOX_PREFIX
from relay.server.worker.home.accounts.names import NameRegistry, Verdict
from relay.server.worker.process.messaging.own_home import OwnHome
from relay.server.worker.wakeup import Wakeup
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Error, Hello, Welcome, Who
from relay.wire.login import Operation
from tests.support.cluster import until
from tests.support.devices import device, hello, sign
from tests.support.workers import Cluster, TestClient, Worker


class _Port:
    """Messages of a home to a worker."""

    index = 1
    generation = 7

    def __init__(self) -> None:
        self.received: list[Message] = []

    def send(self, message: Message) -> None:
        self.received.append(message)

    def submit(self, tag: int, sends: list[Submission]) -> None:
        self.received += [Submit(tag, submission, []) for submission in sends]

    def publish(self, message: Batch | Event) -> None:
        self.received.append(message)


def _book(cluster: Cluster, name: str) -> NameRegistry:
    return cluster.home(INBOX_PREFIX + name).parts.home.names


async def _ended_with(client: TestClient, code: CloseCode) -> None:
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == code


async def _refused(worker: Worker, name: str) -> None:
    client = await TestClient.connect(worker)
    client.hello(name)
    await client.expect(Error, lambda e: e.code == ErrorCode.NAME_TAKEN)
    await _ended_with(client, CloseCode.NAME_REFUSED)


async def test_one_holder_on_all_workers(cluster: Cluster) -> None:
    """A guest's name: other clients are refused everywhere until the holder is gone."""
    for worker in cluster.workers.values():
        holder = await TestClient.login(worker, "~alice")
        for other in cluster.workers.values():
            await _refused(other, "~alice")
        holder.disconnect()
        await until(
            lambda: "~alice" not in _book(cluster, "~alice")._holders, "the name to be free"
        )


async def test_the_same_instance_replaces_its_ghost(cluster: Cluster) -> None:
    """From worker to worker and back: the old connection gets REPLACED, and its end releases
    nothing.
    """
    secret = secrets.token_bytes(16)
    ghost = await TestClient.login(cluster.workers[0], "~alice", secret=secret)
    await ghost.join("lobby")
    for turn in range(1, 6):
        worker = cluster.workers[turn % 2]
        fresh = await TestClient.login(worker, "~alice", secret=secret)
        await _ended_with(ghost, CloseCode.REPLACED)
        await fresh.join("lobby")
        await _refused(worker, "~alice")
        ghost = fresh


async def test_the_later_connection_stays_though_it_spoke_first(cluster: Cluster) -> None:
    """HELLO of an older connection comes second: the older one is replaced."""
    older = await TestClient.connect(cluster.workers[0])
    newer = await TestClient.connect(cluster.workers[1])
    secret = secrets.token_bytes(16)
    newer.hello("~alice", secret=secret)
    await newer.expect(Welcome)
    older.hello("~alice", secret=secret)
    await _ended_with(older, CloseCode.REPLACED)
    await newer.join("lobby")
    assert newer.closed is None


async def test_the_name_outlives_its_home(cluster: Cluster) -> None:
    """A home dies; its successor learns who has the name before it answers any other client."""
    home = cluster.home(INBOX_PREFIX + "~alice")
    (other,) = [worker for worker in cluster.workers.values() if worker is not home]
    holder = await TestClient.login(other, "~alice")
    await cluster.kill(home.index)
    thief = await TestClient.connect(other)
    thief.hello("~alice")
    await cluster.start(home.index)
    await thief.expect(Error, lambda e: e.code == ErrorCode.NAME_TAKEN)
    await holder.join("lobby")
    assert holder.closed is None


async def test_sessions_that_end_while_the_home_is_dead(
    tmp_path: Path,
) -> None:
    """Their claims are not sent again, and no login waits for ever."""
    async with Cluster(tmp_path, 2, needs={"login_s": 3.0}) as cluster:
        await _end_while_the_home_is_dead(cluster)


async def _end_while_the_home_is_dead(cluster: Cluster) -> None:
    home = cluster.home(INBOX_PREFIX + "~alice")
    (other,) = [worker for worker in cluster.workers.values() if worker is not home]
    first = await TestClient.login(other, "~alice")
    await cluster.kill(home.index)
    waiting = await TestClient.connect(other)
    waiting.hello("~alice")
    await until(lambda: len(other.parts.member.claims._claims) == 2, "the claim to arrive")
    first.disconnect()
    await _ended_with(waiting, CloseCode.LOGIN_UNAVAILABLE)
    await until(lambda: not other.parts.member.claims._claims, "the claims to be forgotten")
    await cluster.start(home.index)
    await cluster.linked()
    await TestClient.login(other, "~alice")


async def test_names_of_a_dead_worker_are_free(cluster: Cluster) -> None:
    """A worker's sessions die with it, and the home releases their names with its link."""
    home = cluster.home(INBOX_PREFIX + "~alice")
    (other,) = [worker for worker in cluster.workers.values() if worker is not home]
    await TestClient.login(other, "~alice")
    await cluster.kill(other.index)
    await TestClient.login(home, "~alice")


KEY = bytes(32)


def _anybody(name: str, key: bytes) -> Verdict:
    return Verdict(0)


def _granted(tag: int) -> Claimed:
    return Claimed(tag, True, False, 0, "", b"", False)


def _denied(tag: int, code: ErrorCode) -> Claimed:
    return Claimed(tag, False, False, int(code), "", b"", False)


def _replaced(tag: int) -> Claimed:
    return Claimed(tag, False, True, 0, "", b"", False)


def test_a_home_that_begins_waits_for_who_is_silent() -> None:
    """Settled only when all live workers have reported, or after a timeout."""
    spoken: set[int] = set()
    now = [0.0]
    port = _Port()
    answers = port.received

    def silent(announced: set[int]) -> bool:
        spoken.update(announced)
        return 7 not in announced

    book = NameRegistry(lambda: now[0], silent, _anybody)
    stranger = Claim(1, "~alice", bytes(16), False, 1, b"")
    book.claim(port, stranger)
    book.settle()
    assert answers == []
    book.claim(
        port, Claim(2, "~alice", b"s" * 16, True, 2, b"")
    )  # it has had the name since before
    assert answers == [_granted(2)]
    book.announced(port)
    assert answers == [_granted(2), _denied(1, ErrorCode.NAME_TAKEN)]

    late = NameRegistry(lambda: now[0], lambda _: True, _anybody)
    answers.clear()
    late.claim(port, stranger)
    now[0] += 2.0
    late.settle()
    assert answers == [_granted(1)], "a silent worker is not waited for longer"


def test_a_ghost_that_is_spoken_of_last_does_not_replace_the_living() -> None:
    """Its worker was stopped, or its link lost: its claim comes late, its connection is older."""
    book = NameRegistry(lambda: 0.0, lambda _: False, _anybody)
    here, there = _Port(), _Port()
    secret = b"s" * 16
    book.claim(there, Claim(1, "~alice", secret, False, 100, KEY))
    book.claim(here, Claim(1, "~alice", secret, False, 200, KEY))
    assert there.received == [_granted(1), Evict(1)]
    book.claim(there, Claim(1, "~alice", secret, True, 100, KEY))  # EVICT was lost with the link
    book.claim(
        there, Claim(2, "~alice", secret, False, 150, KEY)
    )  # a HELLO that was delayed in a stopped worker
    assert there.received[2:] == [_replaced(1), _replaced(2)]
    assert here.received == [_granted(1)], "the live connection stays"


def test_who_is_refused_has_the_name_no_more() -> None:
    """Its worker has ended the session, and does not report that again."""
    verdict = Verdict(0)
    book = NameRegistry(lambda: 0.0, lambda _: False, lambda _name, _key: verdict)
    port = _Port()
    book.claim(port, Claim(1, "alice", b"s" * 16, False, 100, KEY))
    assert book.online("alice")
    verdict = Verdict(int(ErrorCode.DISABLED))
    book.claim(port, Claim(1, "alice", b"s" * 16, True, 100, KEY))
    assert port.received == [_granted(1), _denied(1, ErrorCode.DISABLED)]
    assert not book.online("alice")


def test_a_login_waits_for_all_changes_of_its_rights() -> None:
    """Two changes may overlap: the end of the first one is not the end of both."""
    book = NameRegistry(lambda: 0.0, lambda _: False, _anybody)
    book.settle()
    port = _Port()
    book.block_claims("alice", True)
    book.block_claims("alice", True)
    book.claim(port, Claim(1, "alice", b"s" * 16, False, 100, KEY))
    book.block_claims("alice", False)
    assert port.received == []
    book.block_claims("alice", False)
    assert port.received == [_granted(1)]


async def test_a_guest_whose_name_another_has_by_now_is_refused(cluster: Cluster) -> None:
    """Its worker was silent for longer than a new home of the name waits: nobody has connected
    with its secret, so it is not replaced, and the reason comes first.
    """
    guest = await TestClient.login(cluster.workers[0], "~alice")
    claims = cluster.workers[0].parts.member.claims
    (claim,) = claims._claims.values()
    claims.on_claimed(
        OwnHome(0, 1, Wakeup(lambda _: None)).to_member, _denied(claim.tag, ErrorCode.NAME_TAKEN)
    )
    await guest.expect(Error, lambda e: (e.request, e.code) == (0, ErrorCode.NAME_TAKEN))
    await _ended_with(guest, CloseCode.NAME_REFUSED)


async def test_hello_refused(single: Cluster) -> None:
    """Bad names, a second HELLO, and anything before it, end the connection with its code."""
    worker = single.workers[0]
    for name in ("", "x", "No Name", "-dash", "a" * 33):
        client = await TestClient.connect(worker)
        if len(name) > 32 or not name:
            client.send_envelopes(Who(1, "lobby"))
            expected = CloseCode.PROTOCOL
        else:
            client.hello(name)
            expected = CloseCode.NAME_REFUSED
        await _ended_with(client, expected)
    client = await TestClient.login(worker, "alice")
    client.send_envelopes(hello(client.connection, client.spki, "alice", client.secret))
    await _ended_with(client, CloseCode.PROTOCOL)
    await until(lambda: not worker.parts.connections.sessions, "all sessions gone")
    assert worker.parts.services.budgets.admission.authenticated == 0
    assert not worker.parts.member.claims._claims


async def test_a_login_storm_for_one_name(cluster: Cluster) -> None:
    """Fifty at once: one gets WELCOME, all others NAME_TAKEN."""
    clients = await asyncio.gather(
        *(TestClient.connect(cluster.workers[number % 2]) for number in range(50))
    )
    for client in clients:
        client.hello("~alice")
    await until(
        lambda: all(any(isinstance(e, Welcome | Error) for e in g.received) for g in clients),
        "an answer for each",
    )
    assert sum(any(isinstance(e, Welcome) for e in g.received) for g in clients) == 1


@pytest.mark.parametrize("name", ["~alice", "alice"])
async def test_the_latest_of_many_connections_stays_whatever_they_say_when(
    cluster: Cluster, name: str
) -> None:
    """One instance, connected repeatedly; HELLOs come in any order, and some all at once."""
    chance = random.Random(19)
    secret = secrets.token_bytes(16)
    for turn in range(6):
        clients = [await TestClient.connect(cluster.workers[chance.randrange(2)]) for _ in range(5)]
        order = chance.sample(clients, len(clients))
        for number, client in enumerate(order):
            client.hello(name, secret=secret)
            if (turn + number) % 3 == 0:
                await until(
                    lambda client=client: client.lost or client.received,  # type: ignore[misc]
                    "an answer",
                )
        latest = clients[-1]
        await latest.expect(Welcome)
        await latest.join("lobby")
        for client in clients[:-1]:
            await _ended_with(client, CloseCode.REPLACED)
            assert not [e for e in client.received if isinstance(e, Error)]
        assert latest.closed is None
        assert _book(cluster, name).sessions(name) == 1
        if turn % 2:
            latest.disconnect()


async def test_a_ghost_that_speaks_while_the_home_is_away_is_one_afterwards(
    cluster: Cluster,
) -> None:
    """All wait for the name's home; the next one knows nothing, and decides all the same."""
    secret = secrets.token_bytes(16)
    home = cluster.home(INBOX_PREFIX + "~alice")
    worker = cluster.other(INBOX_PREFIX + "~alice")
    clients = [await TestClient.connect(worker) for _ in range(4)]
    await cluster.kill(home.index)
    for client in (clients[2], clients[3], clients[0]):
        client.hello("~alice", secret=secret)
    await cluster.start(home.index)
    await cluster.linked()
    clients[1].hello("~alice", secret=secret)
    await clients[3].expect(Welcome)
    for client in clients[:3]:
        await _ended_with(client, CloseCode.REPLACED)
    await clients[3].join("lobby")


async def test_a_guest_has_no_device(cluster: Cluster) -> None:
    """Whatever it proves, no request or message of a guest counts as a device's."""
    guest, key = await TestClient.connect(cluster.workers[0]), device("alice")
    signature = sign(Operation.LOGIN, guest.connection, guest.spki, "~ann", key)
    guest.send_envelopes(Hello("~ann", bytes(16), "", "", key.public, signature))
    assert (await guest.expect(Welcome)).root == b""
    assert cluster.session("~ann").key_id == b""
