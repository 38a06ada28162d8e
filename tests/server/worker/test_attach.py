"""A partition without a home for a moment: sends meanwhile are neither lost nor duplicated."""

from __future__ import annotations

import itertools

from relay.bus.messages import Ask, Claim, Message, Presence, Submit, Who
from relay.chat.accounts import requests as accounts
from relay.chat.entries import NO_EPOCH, submission
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.chat.rooms import requests as rooms
from relay.server.worker.process.messaging.own_home import OwnHome
from relay.server.worker.wakeup import Wakeup
from relay.wire.envelopes import Join, Joined, Members
from relay.wire.envelopes import Who as AskWho
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

ROOM = "lobby"


def _refuse(home: Worker, other: Worker, log: str) -> None:
    """The home answers NOT_HOME to the other worker (as after an error of its store)."""
    followers = home.parts.home.followers
    port = next(p for p, _ in followers.attached if p.generation == other.generation)
    followers.refuse(port, partition_of(log))


async def test_who_leaves_meanwhile_is_gone(cluster: Cluster) -> None:
    """No stale entry remains in the roster, the interest or the name registry."""
    home, other = cluster.home(ROOM), cluster.other(ROOM)
    client = await TestClient.login(other, "alice")
    await client.join(ROOM)
    stays = await TestClient.login(home, "bob")
    await stays.join(ROOM)
    _refuse(home, other, ROOM)
    book = cluster.home(INBOX_PREFIX + "alice")
    if book is not other:
        _refuse(book, other, INBOX_PREFIX + "alice")
    client.disconnect()

    await until(lambda: "alice" not in book.parts.home.names._holders, "the name to be free")
    await until(
        lambda: (
            other.parts.member.routes.port_of(ROOM) is not None
            and not other.parts.member.feeds.by_log
        ),
        "the partition to be attached again",
    )
    await until(
        lambda: len(home.parts.home.interest.logs[ROOM]) == 1, "the home to forget its interest"
    )
    stays.send_envelopes(AskWho(9, ROOM))
    assert [row[0] for row in (await stays.expect(Members)).names] == ["bob"]
    again = await TestClient.login(home, "alice")
    again.disconnect()


async def test_sends_under_way_keep_their_order(cluster: Cluster) -> None:
    """Sends after one that was answered with NOT_HOME wait for it: no answer is out of order."""
    home, other = cluster.home(ROOM), cluster.other(ROOM)
    client = await TestClient.login(other, "alice")
    await client.join(ROOM)
    for first in range(1, 200, 20):
        client.send(ROOM, first, first + 9)
        _refuse(home, other, ROOM)
        client.send(ROOM, first + 10, first + 19)
        await client.acked(ROOM, first + 19)
    await client.has(ROOM, 200)
    assert client.seqs(ROOM) == list(range(1, 201))


async def test_what_comes_before_a_partition_is_attached_has_no_effect(cluster: Cluster) -> None:
    """Sent before the worker processed NOT_HOME, it is sent again after ATTACH with the rest."""
    home = cluster.home(ROOM)
    name, stranger = itertools.islice(cluster.names_of(home), 2)
    stays = await TestClient.login(home, name)
    await stays.join(ROOM)
    port = OwnHome(7, 99, Wakeup(lambda _: None)).to_member
    handlers = home.parts.dispatcher.handlers
    inbox = INBOX_PREFIX + stranger
    messages: list[Message] = [
        Submit(
            1, submission(ROOM, stranger, b"", b"p" * 16, 1, 0, "", b"hello", b"", False, None), []
        ),
        Presence(ROOM, [[stranger, "", 1]]),
        Who(2, ROOM),
        Claim(3, "~" + stranger, b"s" * 16, True, 1, b""),
        Claim(3, stranger, b"s" * 16, True, 1, b""),
        Ask(4, inbox, stranger, b"", accounts.pack(accounts.Show())),
        Ask(5, ROOM, stranger, b"", rooms.pack(rooms.Show(""), rooms.ANYTHING_SEEN)),
    ]
    for message in messages:
        handlers[type(message)](port, message)
    stays.send(ROOM, 1)
    await stays.acked(ROOM, 1)  # every accepted send is answered by now
    stays.send_envelopes(AskWho(9, ROOM))
    assert [row[0] for row in (await stays.expect(Members)).names] == [name]
    assert not port.queue


async def test_who_joins_while_old_entries_are_removed_is_answered_after_that(
    single: Cluster,
) -> None:
    """And not only at the next commit, which in a quiet partition may be a day away."""
    worker = single.workers[0]
    partitions, index = worker.parts.home.partitions, partition_of("lobby")
    alice = await TestClient.login(worker, "alice")
    alice.send("lobby", 1)
    await alice.acked("lobby", 1)
    await until(lambda: partitions.begin_removal(index) is not None, "no commit under way")
    alice.send_envelopes(Join(1, "lobby", NO_EPOCH, 0, 0))
    followers = worker.parts.home.followers
    await until(lambda: bool(followers.waiting.get(index)), "a worker that waits")
    partitions.end_removal(index)
    await alice.expect(Joined)
