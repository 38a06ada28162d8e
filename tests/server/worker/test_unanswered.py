"""A client that waits for a home is answered within a stated time, whatever state the home is in.

There are two cases: there is no home, which every worker knows; or the home does not answer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import pytest
import pytest_asyncio

from relay import limits
from relay.bus.link import Link
from relay.bus.messages import Answered
from relay.chat.accounts import requests as of_accounts
from relay.chat.rooms import requests as of_rooms
from relay.codec import Unknown
from relay.server.worker.connection.requests.commands import OPERATIONS
from relay.server.worker.connection.stages import Stage
from relay.server.worker.member.queries import PendingQueries
from relay.server.worker.member.reply import ANSWER_S_MAX
from relay.server.worker.member.routes import AWAY_S_MAX
from relay.wire.codes import CloseCode, ErrorCode, may_reconnect
from relay.wire.envelopes import (
    Account,
    Ack,
    ClientEnvelope,
    Devices,
    Enrol,
    Error,
    Hello,
    History,
    Join,
    Leave,
    Prove,
    Refused,
    Register,
    Room,
    Search,
    Send,
    ServerEnvelope,
    Who,
)
from relay.wire.login import Operation
from tests.support.cluster import until
from tests.support.devices import device, hello, register, sign
from tests.support.workers import Cluster, TestClient, Worker

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.member.routes import Routes

ROOM, NEW = "lobby", "market"
"""Two logs of one home, one of which is followed before the home is gone."""
NUMBER = 7
LATER: Final = int(ErrorCode.UNAVAILABLE)


class Town(NamedTuple):
    """A client of a worker that is not the home of what it asks about."""

    cluster: Cluster
    home: Worker
    other: Worker
    client: TestClient
    name: str
    """The client's handle: its account and its inbox have that home, too."""
    person: str
    """Another user with the same home."""
    new: str
    """Likewise, a name that does not exist."""


class Silent:
    """A home that does not answer: what is sent to it is lost."""

    def __init__(self) -> None:
        self.generation = -1

    def is_deaf(self, link: Link) -> bool:
        return link.generation == self.generation


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Silent:
    silent = Silent()
    for name in ("send", "submit"):
        usual = getattr(Link, name)

        def sent(link: Link, *message: object, usual: Callable[..., None] = usual) -> None:
            if not silent.is_deaf(link):
                usual(link, *message)

        monkeypatch.setattr(Link, name, sent)
    return silent


@pytest_asyncio.fixture
async def town(cluster: Cluster) -> AsyncIterator[Town]:
    home, other = cluster.home(ROOM), cluster.other(ROOM)
    assert cluster.home(NEW) is home
    name, person, new = itertools.islice(cluster.names_of(home), 3)
    (await TestClient.login(other, person)).disconnect()
    client = await TestClient.login(other, name)
    await client.join(ROOM)
    client.send(ROOM, 1)
    await client.has(ROOM, 1)
    yield Town(cluster, home, other, client, name, person, new)


def _account(request: of_accounts.Request) -> Callable[[Town], Account]:
    return lambda _: Account(NUMBER, "", of_accounts.pack(request))


def _room(request: of_rooms.Request) -> Callable[[Town], Room]:
    return lambda _: Room(NUMBER, NEW, of_rooms.pack(request, of_rooms.ANYTHING_SEEN))


Asked = Callable[[Town], ClientEnvelope]
READY: Final[Mapping[type, list[tuple[Asked, bool]]]] = {
    Join: [(lambda _: Join(NUMBER, NEW, None, 0, 0), True)],
    Send: [
        (lambda _: Send(ROOM, 2, 0, "", b"to a room"), True),
        (lambda town: Send(f"@{town.person}", 1, 0, "", b"to a person"), True),
    ],
    Who: [(lambda _: Who(NUMBER, ROOM), True)],
    History: [(lambda _: History(NUMBER, ROOM, False, 0, 10), False)],
    Search: [(lambda _: Search(NUMBER, ROOM, "word", 0, 10), False)],
    Devices: [(lambda town: Devices(NUMBER, town.person, 0), False)],
    Account: [
        (_account(of_accounts.Preferences()), True),
        (_account(of_accounts.Block("mallory", bytes(32))), True),
        (_account(of_accounts.Marks("")), False),
        (
            lambda town: Account(NUMBER, town.person, of_accounts.pack(of_accounts.LastSeen())),
            True,
        ),
    ],
    Room: [
        (_room(of_rooms.Show("")), True),
        (_room(of_rooms.Enter()), True),
        (_room(of_rooms.List(0, "")), False),
        (_room(of_rooms.Mine("")), False),
    ],
    Prove: [(lambda _: Prove(NUMBER, bytes(32)), False)],
    Leave: [(lambda _: Leave(NUMBER, ROOM), False)],
}
"""What is asked, and whether it needs the home."""


async def _seconds(worker: Worker, count: int) -> None:
    """Run what a worker does each second, so many times."""
    for _ in range(count):
        worker._sweep()
        await asyncio.sleep(0)


async def _lost(town: Town, silent: Silent, how: str) -> int:
    """Let the home go; return within how many seconds each request is to be answered."""
    if how == "hangs":
        silent.generation = town.home.generation
        return ANSWER_S_MAX + 2
    await town.cluster.kill(town.home.index)
    return AWAY_S_MAX + 2


def _answer(town: Town, asked: ClientEnvelope) -> ServerEnvelope | None:
    for envelope in town.client.received:
        if isinstance(asked, Send):
            if isinstance(envelope, Refused) and envelope.counter == asked.counter:
                return envelope
        elif getattr(envelope, "request", 0) == NUMBER:
            return envelope
    return None


def test_the_tables_have_all_that_can_be_asked() -> None:
    """A new operation needs a row: what it waits for must have a bound."""
    assert set(READY) == set(OPERATIONS[Stage.READY]) - {Unknown}
    assert set(BEFORE) == set(OPERATIONS[Stage.HELLO])


@pytest.mark.parametrize("how", ["away", "hangs"])
async def test_each_operation_is_answered(town: Town, silent: Silent, how: str) -> None:
    """With a time to retry; what needs no home goes on."""
    within_s = await _lost(town, silent, how)
    client, other = town.client, town.other
    other.sweeps = False  # the seconds pass here
    for make, waits in (row for rows in READY.values() for row in rows):
        asked = make(town)
        client.received.clear()
        client.send_envelopes(asked)
        session = town.cluster.session(town.name)
        if waits:
            sent = isinstance(asked, Send)
            await until(
                lambda: (
                    other.parts.member.forward.unanswered if sent else session.reading.pauses  # noqa: B023
                ),
                "it to wait",
            )
            other.sweeps = True
            await _seconds(other, within_s)
            other.sweeps = False
        await client.until(lambda: _answer(town, asked), f"an answer to {asked}")  # noqa: B023
        answer = _answer(town, asked)
        if not waits:
            assert getattr(answer, "code", 0) != LATER, answer
            continue
        assert isinstance(answer, Error | Refused), answer
        assert (answer.code, answer.arg) == (LATER, limits.RETRY_MS), (asked, answer)
        assert not session.reading.pauses
    assert not other.parts.member.queries._asked
    assert not other.parts.member.queries._pending
    assert not any(other.parts.member.forward._bytes)


BEFORE: Final[Mapping[type, Callable[[Town, TestClient], ClientEnvelope]]] = {
    Hello: lambda town, client: hello(client.connection, client.spki, town.person, bytes(16)),
    Register: lambda town, client: register(client.connection, client.spki, town.new),
    Enrol: lambda town, client: Enrol(
        1,
        town.person,
        device("new").public,
        sign(Operation.ADD_DEVICE, client.connection, client.spki, town.person, device("new")),
        b"",
    ),
}


@pytest.mark.parametrize("how", ["away", "hangs"])
@pytest.mark.parametrize("kind", BEFORE)
async def test_each_operation_before_a_login_is_answered(
    town: Town, silent: Silent, kind: type, how: str
) -> None:
    """What cannot be decided ends with a close that has a retry time: clients come back with it."""
    within_s = await _lost(town, silent, how)
    client = await TestClient.connect(town.other)
    client.send_envelopes(BEFORE[kind](town, client))
    (session,) = [s for s in town.other.parts.connections.sessions if not s.welcomed]
    await until(lambda: session.reading.pauses, "it to wait")
    await _seconds(town.other, within_s)
    town.other.sweeps = False  # no other deadline ends it
    await client.ended()
    assert client.closed is not None
    assert client.closed.code == CloseCode.LOGIN_UNAVAILABLE
    assert may_reconnect(client.closed.code)
    assert client.closed.retry_after_s
    assert not any(isinstance(e, Error) for e in client.received)
    await until(lambda: not town.other.parts.member.claims._by_name.values(town.person), "no claim")


@pytest.mark.parametrize("how", ["away", "hangs"])
async def test_a_message_whose_recipients_home_does_not_answer(
    town: Town, silent: Silent, how: str
) -> None:
    """Its sender's home waits for that answer, and so do the sender's next messages."""
    here = next(town.cluster.names_of(town.other))
    client = await TestClient.login(town.other, here)
    within_s = await _lost(town, silent, how)
    client.send_envelopes(Send(f"@{town.person}", 1, 0, "", b"you there?"))
    await until(lambda: town.other.parts.member.forward.unanswered, "it to wait")
    await _seconds(town.other, within_s)
    refused = await client.expect(Refused)
    assert (refused.counter, refused.code, refused.arg) == (1, LATER, limits.RETRY_MS)


async def test_what_was_given_up_is_stored_once_when_it_is_sent_again(town: Town) -> None:
    """Although the home had stored it, and died before it could answer."""
    client, other = town.client, town.other
    publishing = town.home.parts.home.writer
    client.send(ROOM, 2, 4)
    await until(lambda: other.parts.member.forward.unanswered == 0, "answers")
    await client.acked(ROOM, 4)
    publishing._partitions.paused = True  # these are under way, and not committed
    client.send(ROOM, 5, 6)
    await until(lambda: other.parts.member.forward.unanswered == 2, "what waits")
    await town.cluster.kill(town.home.index)
    await _seconds(other, AWAY_S_MAX + 2)
    await client.expect(Refused, count=2)
    client.received.clear()
    await town.cluster.start(town.home.index)
    await town.cluster.linked()  # until then, what is sent there is refused at once
    client.send(ROOM, 2, 6)
    await client.acked(ROOM, 6)
    acks = [(e.counter, e.seq) for e in client.received if isinstance(e, Ack)]
    assert acks == [(n, n) for n in range(2, 7)]


def test_a_home_that_asks_another_one_is_answered_in_time_as_well() -> None:
    """Its request has no end of its own: a home that lost it waits, and so does what follows."""
    queries = PendingQueries(cast("Routes", SimpleNamespace(port_of=lambda _: None)))
    answers: list[Answered] = []
    assert queries.ask_then("@bob", "alice", b"", answers.append)
    for _ in range(ANSWER_S_MAX):
        queries.give_up(frozenset())
    assert not answers
    queries.give_up(frozenset())
    assert [answer.code for answer in answers] == [LATER]
    queries.on_answered(cast("Port", None), Answered(1, 0, "", b""))
    assert len(answers) == 1
    assert not queries._asked
    assert not queries._called
