"""Operators whose accounts cannot be read by the home of what they ask for.

A home does not take a session's word for the rights of an operator (``home.accounts.operators``).
While it cannot look, it does what everybody may ask for, and nothing is refused for good.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from relay.chat.accounts import requests as accounts
from relay.chat.entries import Kind as EntryKind
from relay.chat.names import INBOX_PREFIX
from relay.chat.rooms import requests as rooms
from relay.chat.rooms.events import Kind, Role
from relay.server.worker.error_codes import NOT_CONFIRMED
from relay.store.errors import StoreUnavailable
from relay.store.log import Reader
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import (
    Account,
    Ack,
    ClientEnvelope,
    Done,
    EntryMessage,
    Error,
    Refused,
    Room,
    Send,
)
from tests.server.worker.test_damaged_logs import connection_of, last_control, reported
from tests.server.worker.test_rooms import LOG, ask, done, stored
from tests.support.operators import an_operator
from tests.support.workers import Cluster, TestClient

NUMBERS = itertools.count(5000)
OPERA = f"{INBOX_PREFIX}opera"


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


@contextmanager
def damaged(cluster: Cluster) -> Iterator[None]:
    """The last entry of the account is no entry."""
    home = cluster.home(OPERA)
    row, packed = last_control(home, OPERA)
    connection = connection_of(home, OPERA)
    connection.execute("UPDATE entry SET packed=? WHERE id=?", (b"\xc1", row))
    yield
    connection.execute("UPDATE entry SET packed=? WHERE id=?", (packed, row))


@contextmanager
def away(cluster: Cluster) -> Iterator[None]:
    """The file with the account cannot be read."""

    def reader_of(log: str) -> Reader:
        raise StoreUnavailable("as this test wants it")

    with pytest.MonkeyPatch.context() as patch:
        for worker in cluster.workers.values():
            patch.setattr(worker.parts.home.queues.operators, "_reader_of", reader_of)
        yield


Asked = Callable[[EntryMessage], ClientEnvelope]
ASKED: dict[str, Asked] = {
    "erase a message": lambda other: Send(
        LOG, 1, int(EntryKind.REDACTION), "text/plain", b"", other.epoch, other.seq
    ),
    "erase it by its number": lambda other: Room(
        next(NUMBERS), LOG, rooms.pack(rooms.Redact(other.seq), rooms.ANYTHING_SEEN)
    ),
    "a role": lambda _: Room(
        next(NUMBERS), LOG, rooms.pack(rooms.SetRole("bob", Role.OWNER), rooms.ANYTHING_SEEN)
    ),
    "show the room": lambda _: Room(
        next(NUMBERS), LOG, rooms.pack(rooms.Show(""), rooms.ANYTHING_SEEN)
    ),
    "disable somebody": lambda _: Account(next(NUMBERS), "bob", accounts.pack(accounts.Disable())),
}


async def answer(client: TestClient, envelope: ClientEnvelope) -> Done | Error | Ack | Refused:
    """Send an envelope, and return what comes back."""
    before = len(client.received)
    client.send_envelopes(envelope)

    def answers() -> list[Done | Error | Ack | Refused]:
        new = client.received[before:]
        return [one for one in new if isinstance(one, Done | Error | Ack | Refused)]

    await client.until(answers, "an answer")
    return answers()[0]


@pytest.mark.parametrize("unreadable", [damaged, away])
@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        *((asked, Kind.PRIVATE) for asked in ASKED),
        # What everybody may read: there the commit itself refuses.
        *((asked, Kind.PUBLIC) for asked in ASKED if asked != "show the room"),
    ],
)
async def test_what_only_an_operator_may_do(
    cluster: Cluster,
    asked: str,
    kind: Kind,
    unreadable: Callable[[Cluster], AbstractContextManager[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is to be asked for again, and is done once the account can be read."""
    opera = await an_operator(cluster, worker=cluster.other(LOG))
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await TestClient.login(cluster.home(LOG), "bob")
    await done(alice, rooms.Create(kind))
    alice.send(LOG, 1)
    await alice.acked(LOG, 1)
    before = stored(cluster.home(LOG))
    envelope = ASKED[asked](before[-1])
    with unreadable(cluster):
        for _ in range(2):
            refused = await answer(opera, envelope)
            assert isinstance(refused, Error | Refused), refused
            assert refused.code == ErrorCode.UNAVAILABLE
            assert refused.text == NOT_CONFIRMED
            assert isinstance(refused, Error) or refused.arg > 0, "when to send it again"
        assert stored(cluster.home(LOG)) == before
        told = [log for log, _ in reported(caplog, "account_unreadable")]
        assert told == [OPERA], "once, however often it is asked for"
    assert isinstance(await answer(opera, envelope), Done | Ack)


@pytest.mark.parametrize("unreadable", [damaged, away])
async def test_what_everybody_may_do(
    cluster: Cluster, unreadable: Callable[[Cluster], AbstractContextManager[None]]
) -> None:
    """It is done, or refused for a reason that has nothing to do with rights."""
    opera = await an_operator(cluster, worker=cluster.other(LOG))
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await done(alice, rooms.Create())
    with unreadable(cluster):
        opera.send(LOG, 1, 3)
        await opera.acked(LOG, 3)
        await done(opera, rooms.Enter())
        exists = await ask(opera, rooms.Create())
        assert isinstance(exists, Error)
        assert exists.code == ErrorCode.ROOM_EXISTS


@pytest.mark.parametrize("unreadable", [damaged, away])
async def test_what_an_operator_may_not_do_either(
    cluster: Cluster, unreadable: Callable[[Cluster], AbstractContextManager[None]]
) -> None:
    """Refused as for everybody: to send it again would never help, and later sends would wait."""
    opera = await an_operator(cluster, worker=cluster.other(LOG))
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await done(alice, rooms.Create(Kind.ANNOUNCE))
    with unreadable(cluster):
        refused = await answer(opera, Send(LOG, 1, 0, "text/plain", b"news"))
    assert isinstance(refused, Refused)
    assert refused.code == ErrorCode.READ_ONLY
