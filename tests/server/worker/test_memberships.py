"""The rooms of a user, over real sockets: unread counts, invitations, and who may write to them.

Unread is what follows the position that the user has marked, in a room of any worker, and is the
same on all devices.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgpack
import pytest

from relay.chat.accounts import requests as account_requests
from relay.chat.accounts.preferences import Writers
from relay.chat.entries import NO_EPOCH
from relay.chat.entries import Kind as EntryKind
from relay.chat.partition import partition_of
from relay.chat.rooms import requests, shown
from relay.chat.rooms.events import Kind, Role
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Account, Ack, Done, Refused, Send
from tests.server.worker.test_rooms import LOG, begun, done, refused
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient

OTHER = "another"
"""A room of another partition."""
HERE = partition_of(LOG)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, 2, rights=True) as running:
        yield running


async def mine(client: TestClient) -> dict[str, tuple[Role, int]]:
    """Return role and unread entries, by room."""
    found: list[shown.Own] = []
    after, end = "", False
    while not end:
        some, after, end = shown.unpack_own(await done(client, requests.Mine(after), log=""))
        found += some
    assert [one.room.name for one in found] == sorted(one.room.name for one in found)
    return {one.room.name: (one.room.role, one.unread) for one in found}


async def mark(client: TestClient, counter: int, log: str, epoch: bytes, seq: int) -> None:
    inbox = f"@{client.name}"
    client.send_envelopes(
        Send(inbox, counter, int(EntryKind.MARK), "", log.encode(), epoch, seq)
    )  # fmt: skip
    await client.acked(inbox, counter)


async def test_a_mark_names_an_epoch(cluster: Cluster) -> None:
    """Otherwise the answers that contain it would be illegal, and the list of rooms unreadable."""
    alice, _ = await begun(cluster)
    for epoch in (b"", b"x", b"epoch-7"):
        alice.received.clear()
        alice.send_envelopes(Send("@alice", 1, int(EntryKind.MARK), "", LOG.encode(), epoch, 1))
        assert (await alice.expect(Refused)).code == ErrorCode.BAD_REQUEST
        assert list(await mine(alice)) == [LOG]


async def test_unread_is_what_follows_the_mark(cluster: Cluster) -> None:
    """A user without a role has no unread count; changes of the room are not counted."""
    alice, bob = await begun(cluster)
    alice.send(LOG, 1, 5)
    await bob.has(LOG, 5)
    assert await mine(bob) == {}
    await done(bob, requests.Enter())
    assert await mine(bob) == {LOG: (Role.MEMBER, 0)}, "what was there when he joined is read"
    alice.send(LOG, 6, 8)
    await done(alice, requests.SetTopic("tea"))
    await done(alice, requests.SetRole("bob", Role.MODERATOR))
    await alice.acked(LOG, 8)
    entry = next(e for e in bob.entries(LOG) if e.counter == 4 and e.kind == EntryKind.MESSAGE)
    await mark(bob, 1, LOG, entry.epoch, entry.seq)
    assert await mine(bob) == {LOG: (Role.MODERATOR, 4)}
    phone = await TestClient.login(cluster.home(LOG), "bob", secret=b"phone" * 3 + b".")
    last = next(e for e in bob.entries(LOG) if e.counter == 7 and e.kind == EntryKind.MESSAGE)
    await mark(phone, 1, LOG, last.epoch, last.seq)
    await mark(bob, 2, LOG, entry.epoch, entry.seq)  # an older position has no effect
    for device in (bob, phone):
        assert await mine(device) == {LOG: (Role.MODERATOR, 1)}
    await mark(bob, 3, LOG, last.epoch, 2**50)
    assert await mine(bob) == {LOG: (Role.MODERATOR, 0)}, "he marked an entry that does not exist"


@pytest.mark.parametrize("lost", ["its end", "its epoch"])
async def test_a_mark_of_what_was_lost_is_replaced_by_the_next(cluster: Cluster, lost: str) -> None:
    """As after restoring a backup. Devices with the old position do not set it back."""
    alice, bob = await begun(cluster)
    await done(bob, requests.Enter())
    alice.send(LOG, 1, 3)
    first, last = await alice.acked(LOG, 1), await alice.acked(LOG, 3)
    epoch = last.epoch if lost == "its end" else b"another."
    await mark(bob, 1, LOG, epoch, 2**40)
    alice.send(LOG, 4, 5)
    seen = await alice.acked(LOG, 4)
    await alice.acked(LOG, 5)
    await mark(bob, 2, LOG, seen.epoch, seen.seq)
    assert await mine(bob) == {LOG: (Role.MEMBER, 1)}
    await mark(bob, 3, LOG, first.epoch, first.seq)
    assert await mine(bob) == {LOG: (Role.MEMBER, 1)}


@pytest.mark.parametrize("banned", [False, True], ids=["a stranger", "a banned member"])
async def test_marks_tell_nothing_of_a_room_that_one_may_not_read(
    cluster: Cluster, banned: bool
) -> None:
    """Otherwise a mark behind the end would be replaced, and one before it would not: whoever tries
    would learn how many entries there are.
    """
    kind = Kind.PUBLIC if banned else Kind.PRIVATE
    alice = await TestClient.login(cluster.home(LOG), "alice")
    await done(alice, requests.Create(kind))
    eve = await TestClient.login(cluster.other(LOG), "eve")
    if banned:
        await done(alice, requests.Ban("eve"))
    alice.send(LOG, 1, 5)
    head = (await alice.acked(LOG, 5)).seq
    marked: list[int] = []
    for number, later in enumerate((head - 1, head + 10)):
        for counter, seq in enumerate((later, 1), 2 * number + 1):
            await mark(eve, counter, LOG, NO_EPOCH, seq)
        marks = account_requests.pack(account_requests.Marks(""))
        eve.send_envelopes(Account(90 + number, "", marks))
        answer = await eve.expect(Done, lambda e, n=90 + number: e.request == n)  # type: ignore[misc]
        (((log, _, seq),), _) = msgpack.unpackb(answer.content)
        assert log == LOG
        marked.append(seq)
    assert marked == [head - 1, head + 10], "the later one stays, wherever the room ends"


async def test_what_one_has_sent_oneself_is_never_unread(cluster: Cluster) -> None:
    """From any device. Nor are edits, reactions and erased messages unread."""
    alice, bob = await begun(cluster)
    await done(bob, requests.Enter())
    script = await TestClient.login(cluster.other(LOG), "bob", secret=b"script" * 2 + b"....")
    script.send(LOG, 1, 300)
    await script.acked(LOG, 300)
    assert await mine(bob) == {LOG: (Role.MEMBER, 0)}
    alice.send(LOG, 1, 3)
    first = await alice.acked(LOG, 1)
    second = await alice.acked(LOG, 2)
    for counter, kind, about in (
        (4, EntryKind.EDIT, first.seq),
        (5, EntryKind.REACTION, first.seq),
        (6, EntryKind.REDACTION, second.seq),
    ):
        alice.send_envelopes(
            Send(LOG, counter, int(kind), "text/plain", b"x", first.epoch, about)
        )  # fmt: skip
        await alice.acked(LOG, counter)
    script.send(LOG, 301, 310)
    await script.acked(LOG, 310)
    assert await mine(bob) == {LOG: (Role.MEMBER, 2)}
    script.send(LOG, 311, 310 + shown.UNREAD_LOOKED_AT)
    await script.acked(LOG, 310 + shown.UNREAD_LOOKED_AT)
    assert await mine(bob) == {LOG: (Role.MEMBER, 0)}, "the newest entries are counted"


async def test_a_room_that_was_deleted_and_begun_again(cluster: Cluster) -> None:
    alice, bob = await begun(cluster)
    await done(bob, requests.Enter())
    alice.send(LOG, 1, 9)
    ack = await alice.acked(LOG, 9)
    await mark(bob, 1, LOG, ack.epoch, ack.seq)
    await done(alice, requests.Delete(""))
    assert await mine(bob) == {}
    await done(alice, requests.Create())
    await done(bob, requests.Enter())
    alice.send(LOG, 10, 11)
    await alice.acked(LOG, 11)
    assert await mine(bob) == {LOG: (Role.MEMBER, 2)}


async def test_an_invitation_waits_for_who_is_away(cluster: Cluster) -> None:
    """No other user's list has it, and it is gone once it was declined."""
    bob = await TestClient.login(cluster.home(LOG), "bob")
    bob.transport.close()
    await bob.gone(cluster.home(LOG))
    alice, carol = [await TestClient.login(cluster.home(LOG), who) for who in ("alice", "carol")]
    await done(alice, requests.Create(Kind.PRIVATE, listed=False))
    await done(alice, requests.Invite("bob"))
    alice.send(LOG, 1, 2)
    await alice.acked(LOG, 2)
    bob = await TestClient.login(cluster.other(LOG), "bob")
    assert await mine(bob) == {LOG: (Role.INVITED, 2)}
    assert await mine(carol) == {}
    listed = requests.List(partition_of(LOG), "")
    rooms, _, _ = shown.unpack_list(await done(bob, listed, log=""))
    assert [one.name for one in rooms] == [LOG]
    rooms, _, _ = shown.unpack_list(await done(carol, listed, log=""))
    assert rooms == []
    await done(bob, requests.Leave())
    assert await mine(bob) == {}


async def test_where_a_list_goes_on_tells_nothing_of_a_hidden_room(cluster: Cluster) -> None:
    """From any position; and rooms after the hidden ones are listed."""
    alice, carol = [await TestClient.login(cluster.home(LOG), who) for who in ("alice", "carol")]
    hidden = [f"hidden-{n}" for n in range(16 * 99) if partition_of(f"hidden-{n}") == HERE]
    hidden = hidden[: shown.ROOMS_PER_ANSWER + 3]
    for name in hidden:
        await done(alice, requests.Create(Kind.PRIVATE, listed=False), log=name)
    last = next(f"visible-{n}" for n in range(999) if partition_of(f"visible-{n}") == HERE)
    for after in ("", "hidden", hidden[0], hidden[-1], "hidden-5"):
        answer = await done(carol, requests.List(HERE, after), log="")
        assert shown.unpack_list(answer) == ([], after, True)
    await done(alice, requests.Create(), log=last)
    answer = await done(carol, requests.List(HERE, ""), log="")
    rooms, after, end = shown.unpack_list(answer)
    assert ([one.name for one in rooms], after, end) == ([last], last, False)


async def test_many_rooms_come_in_parts(cluster: Cluster) -> None:
    alice = await TestClient.login(cluster.home(LOG), "alice")
    count = 2 * shown.ROOMS_PER_ANSWER + 3
    for number in range(count):
        await done(alice, requests.Create(), log=f"room-{number:02}")
    assert list(await mine(alice)) == [f"room-{number:02}" for number in range(count)]


async def test_a_guest_has_no_rooms(tmp_path: Path) -> None:
    async with Cluster(tmp_path, 1, rights=True) as cluster:
        guest = await TestClient.login(cluster.home(LOG), "~guest")
        await done(guest, requests.Create())
        assert await mine(guest) == {}


async def test_members_of_ones_rooms_may_write(cluster: Cluster) -> None:
    """Only permanent members of a shared room, not temporary ones."""
    alice, bob = await begun(cluster)
    await done(alice, requests.Create(), log=OTHER)

    async def choose(writers: Writers) -> None:
        content = account_requests.pack(account_requests.Prefer(int(writers), 1))
        bob.send_envelopes(Account(8, "", content))
        await bob.expect(Done, lambda found: found.request == 8)

    async def write(counter: int) -> int:
        """Alice writes to bob; return the error code."""
        alice.received.clear()
        alice.send_envelopes(Send("@bob", counter, 0, "text/plain", b"hi"))

        def answers() -> list[Ack | Refused]:
            return [one for one in alice.received if isinstance(one, Ack | Refused)]

        await alice.until(answers, "an answer")
        (answer,) = answers()
        return answer.code if isinstance(answer, Refused) else 0

    await choose(Writers.ROOMS)
    assert await write(1) == ErrorCode.NOT_ACCEPTED, "bob is not a member of her room"
    await done(bob, requests.Enter(), log=OTHER)
    assert await write(1) == 0
    await done(alice, requests.SetRole("bob", Role.NONE), log=OTHER)
    assert await write(2) == ErrorCode.NOT_ACCEPTED
    await done(alice, requests.Invite("bob"), log=OTHER)
    assert await write(2) == ErrorCode.NOT_ACCEPTED, "inviting bob does not let her write to him"
    for role in (Role.MEMBER, Role.MODERATOR, Role.OWNER):
        await done(alice, requests.SetRole("bob", role), log=OTHER)
        assert await write(2) == ErrorCode.NOT_ACCEPTED, "nor does a role that he did not take"
    assert (await mine(bob))[OTHER][0] is Role.OWNER
    await done(bob, requests.Enter(), log=OTHER)
    assert (await mine(bob))[OTHER][0] is Role.OWNER, "entering takes nothing away"
    assert await write(2) == 0
    await done(bob, requests.Leave(), log=OTHER)
    assert await write(3) == ErrorCode.NOT_ACCEPTED
    await choose(Writers.ALL)
    assert await write(3) == 0


async def test_nobody_owns_more_rooms_by_what_others_do(cluster: Cluster) -> None:
    """A role that is given counts for the budget of rooms from when its owner enters; and whoever
    gives a room away keeps it until then.
    """
    alice, bob = await begun(cluster)
    await done(alice, requests.SetRole("bob", Role.OWNER))
    session = cluster.session("bob")
    owned = partial(session.services.rooms_owned, session.actor)
    assert owned() == 0
    assert await refused(alice, requests.Leave()) == ErrorCode.BAD_REQUEST
    await done(bob, requests.SetRole("bob", Role.MEMBER))
    await done(alice, requests.SetRole("bob", Role.OWNER))
    await done(bob, requests.Enter())
    await until(lambda: owned() == 1, "bob owns the room")
    await done(alice, requests.Leave())
