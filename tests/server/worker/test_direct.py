"""Direct messages: accepted once, in order, to absent users and across kills, and private.

The homes of the two inboxes are on different workers, and each user is on the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from relay.chat.accounts import answers, events, requests
from relay.chat.entries import Kind
from relay.chat.partition import partition_of
from relay.server.worker.home.partitions import OwnPartitions
from relay.store.errors import StoreUnavailable
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import (
    Account,
    Ack,
    Chain,
    Devices,
    Done,
    EntryMessage,
    Error,
    History,
    Join,
    Page,
    Refused,
    Send,
    Welcome,
    Who,
)
from tests.support.cluster import until
from tests.support.workers import Cluster, TestClient, Worker

if TYPE_CHECKING:
    from relay.chat.entries import Submission
    from relay.store.log import Outcome, Partition
from relay.store.read_budget import ReadBudget

ALICE, BOB, CAROL = "alice", "bob", "carol"


async def person(cluster: Cluster, name: str, *, secret: bytes = b"") -> TestClient:
    """Log in on a worker that is not the home of the user's inbox."""
    return await TestClient.login(cluster.other(f"@{name}"), name, secret=secret)


async def both(cluster: Cluster) -> tuple[TestClient, TestClient]:
    """Two users whose inboxes have different homes; the second one follows its own inbox."""
    assert cluster.home("@alice") is not cluster.home("@bob")
    alice, bob = await person(cluster, ALICE), await person(cluster, BOB)
    await bob.join("@bob")
    return alice, bob


def send_direct(client: TestClient, to: str, first: int, last: int = 0) -> None:
    """Send direct messages with these counters."""
    counters = range(first, (last or first) + 1)
    client.send_envelopes(
        *[Send(f"@{to}", n, 0, "text/plain", f"{client.name} {n}".encode()) for n in counters]
    )


def got(client: TestClient) -> list[tuple[str, str]]:
    """Return (sender, text) of the messages in the client's own inbox, in order of arrival."""
    return [
        (entry.sender, entry.body.decode())
        for entry in client.entries(f"@{client.name}")
        if entry.kind == Kind.MESSAGE
    ]


def forget_refusals(client: TestClient) -> None:
    """Clear the received errors: ``acked`` treats any as a failure."""
    client.received = [e for e in client.received if not isinstance(e, Refused)]


def about(number: int) -> Callable[[Error | Page | Chain], bool]:
    """Return a predicate: whether an answer is to this request."""
    return lambda answer: answer.request == number


async def root_of(client: TestClient) -> bytes:
    """Return the root of the client's own account."""
    return (await client.expect(Welcome)).root


async def ask(client: TestClient, number: int, request: requests.Request) -> Done:
    """Send a request about the client's own account."""
    client.send_envelopes(Account(number, "", requests.pack(request)))
    return await client.expect(Done, lambda done: done.request == number)


# --- once, in order -----------------------------------------------------------------------------
async def test_a_message_is_in_both_inboxes(cluster: Cluster) -> None:
    """Two users write to a third: each inbox has its own numbering, and no other is visible."""
    alice, bob = await both(cluster)
    carol = await person(cluster, CAROL)
    send_direct(alice, CAROL, 1)
    send_direct(alice, BOB, 2, 3)
    send_direct(carol, BOB, 1, 2)
    await alice.acked("@alice", 3)
    await carol.acked("@carol", 2)
    await bob.until(lambda: len(got(bob)) == 4, "all messages")
    assert [text for text in got(bob) if text[0] == ALICE] == [
        (ALICE, "alice 2"),
        (ALICE, "alice 3"),
    ]
    assert [text for text in got(bob) if text[0] == CAROL] == [
        (CAROL, "carol 1"),
        (CAROL, "carol 2"),
    ]
    copies = [entry for entry in bob.entries("@bob") if entry.kind == Kind.MESSAGE]
    assert {entry.to for entry in copies} == {BOB}
    assert {entry.counter for entry in copies} == {entry.seq for entry in copies}
    assert alice.producer not in {entry.producer for entry in copies}
    await alice.join("@alice", last=1000)
    await alice.until(lambda: len(got(alice)) == 3, "what was sent")
    sent = [entry for entry in alice.entries("@alice") if entry.kind == Kind.MESSAGE]
    assert [(entry.to, entry.counter) for entry in sent] == [(CAROL, 1), (BOB, 2), (BOB, 3)]
    assert {entry.producer for entry in sent} == {alice.producer}


async def test_a_resend_is_the_message_that_was_stored(cluster: Cluster) -> None:
    """From another connection of the same instance, on another worker."""
    alice, bob = await both(cluster)
    send_direct(alice, BOB, 1, 5)
    first = await alice.acked("@alice", 5)
    again = await TestClient.login(cluster.home("@alice"), ALICE, secret=alice.secret)
    send_direct(again, BOB, 3, 6)
    assert (await again.acked("@alice", 5)) == first
    await again.acked("@alice", 6)
    again.send_envelopes(
        Send("@carol", 4, 0, "text/plain", b"alice 4"), Send("@bob", 9, 0, "", b"skipped")
    )
    refused = [await again.expect(Refused, count=n) for n in (1, 2)]
    assert {(e.log, e.counter, e.code, e.arg) for e in refused} == {
        ("@alice", 9, ErrorCode.EXPECTED, 7),
        ("@alice", 4, ErrorCode.ID_CONFLICT, first.seq - 1),
    }, "the recipient is part of the message"
    await bob.until(lambda: len(got(bob)) >= 6, "all messages")
    assert got(bob) == [(ALICE, f"alice {n}") for n in range(1, 7)]


async def test_who_is_away_finds_it_later(cluster: Cluster) -> None:
    """On any worker, from a cursor; and the messages with one user, by pages."""
    alice, bob = await both(cluster)
    bob.disconnect()
    await bob.gone(cluster.other("@bob"))
    carol = await person(cluster, CAROL)
    send_direct(alice, BOB, 1, 3)
    send_direct(carol, BOB, 1)
    await alice.acked("@alice", 3)
    await carol.acked("@carol", 1)
    back = await TestClient.login(cluster.home("@bob"), BOB)
    await back.join("@bob", last=1000)
    await back.until(lambda: len(got(back)) == 4, "what came meanwhile")
    back.send_envelopes(Send("@alice", 1, 0, "text/plain", b"bob 1"))
    await back.acked("@bob", 1)
    back.send_envelopes(History(9, "@alice", False, 0, 2))
    page = await back.expect(Page)
    assert [entry.body for entry in page.entries] == [b"alice 3", b"bob 1"]
    assert not page.end
    back.send_envelopes(History(10, "@alice", False, page.next, 9))
    page = await back.expect(Page, lambda page: page.request == 10)
    assert [entry.body for entry in page.entries] == [b"alice 1", b"alice 2"]
    assert page.end


async def test_a_note_to_oneself(cluster: Cluster) -> None:
    """It is stored once."""
    _, bob = await both(cluster)
    send_direct(bob, BOB, 1, 2)
    await bob.acked("@bob", 2)
    await bob.until(lambda: len(got(bob)) == 2, "the notes")
    assert got(bob) == [(BOB, "bob 1"), (BOB, "bob 2")]


# --- kills between the inboxes --------------------------------------------------------------------
def lost_on_the_way(worker: Worker) -> list[object]:
    """Drop the copies that a home sends; return them."""
    assert worker.parts.home.queues.direct is not None
    lost: list[object] = []
    worker.parts.home.queues.direct.copies._send = lost.append
    return lost


def never_confirmed(worker: Worker) -> list[object]:
    """Drop a home's confirmations of copies; return them."""
    assert worker.parts.home.queues.direct is not None
    confirmed: list[object] = []
    worker.parts.home.queues.direct.copies._confirm = lambda *place: confirmed.append(place)
    return confirmed


@pytest.mark.parametrize("hold", [lost_on_the_way, never_confirmed])
async def test_the_senders_home_dies_between_the_inboxes(
    cluster: Cluster, hold: Callable[[Worker], list[object]]
) -> None:
    """After accepting, before or after delivery: it is delivered once, in order."""
    alice, bob = await both(cluster)
    held = hold(cluster.home("@alice"))
    send_direct(alice, BOB, 1, 3)
    await alice.acked("@alice", 3)
    if hold is never_confirmed:
        await bob.until(lambda: len(got(bob)) == 3, "the copies")
        await until(lambda: len(held) == 3, "the confirmations")
    else:
        await until(lambda: len(held) == 3, "copies on their way")
        assert got(bob) == []
    index = cluster.home("@alice").index
    await cluster.kill(index)
    await cluster.start(index)
    await cluster.linked()
    back = await TestClient.login(cluster.other("@bob"), BOB)
    await back.join("@bob", last=1000)
    again = await TestClient.login(cluster.home("@alice"), ALICE, secret=alice.secret)
    send_direct(again, BOB, 3, 4)
    await again.acked("@alice", 4)
    await back.until(lambda: (ALICE, "alice 4") in got(back), "what came after the kill")
    assert got(back) == [(ALICE, f"alice {n}") for n in range(1, 5)]
    partitions = cluster.home("@alice").parts.home.partitions
    await until(lambda: not _pending(partitions, "@alice"), "nothing is pending any more")


async def test_what_is_pending_is_sent_on_if_its_partition_comes_back_open(
    cluster: Cluster,
) -> None:
    """Two changes of the table before the threads of the partition have finished."""
    alice, _ = await both(cluster)
    worker, index, table = cluster.home("@alice"), partition_of("@alice"), cluster.scoreboard
    assert worker.parts.home.queues.direct is not None
    copies, partitions = worker.parts.home.queues.direct.copies, worker.parts.home.partitions
    lost = lost_on_the_way(worker)
    send_direct(alice, BOB, 1, 40)
    await alice.acked("@alice", 40)
    await until(lambda: len(lost) == 32, "as many on their way as may be")
    await until(lambda: partitions.begin_removal(index) is not None, "nobody at work in it")
    owner = table.owner(index)
    other = cluster.other("@alice").index
    table.assign(index, other, table.owner(partition_of("@bob")).generation)
    worker.parts.home.writer.give_up_others()
    table.assign(index, owner.worker, owner.generation)
    worker.parts.home.writer.give_up_others()
    assert copies.count == 40
    partitions.end_removal(index)


async def test_a_confirmation_whose_commit_fails(cluster: Cluster) -> None:
    """No other message is written to the inbox: the confirmation is stored nevertheless."""
    alice, bob = await both(cluster)
    send_direct(alice, BOB, 1)
    await alice.acked("@alice", 1)
    partitions = cluster.home("@alice").parts.home.partitions
    await until(lambda: not _pending(partitions, "@alice"), "the first confirmation")
    index = partition_of("@alice")
    real = partitions.opened[index]
    failing = FailsOnce(real)
    partitions.opened[index] = cast("Partition", failing)
    try:
        send_direct(alice, BOB, 2)
        await bob.until(lambda: len(got(bob)) == 2, "the copies")
        await until(lambda: failing.failed, "a commit of the confirmation alone")
        await until(lambda: not _pending(partitions, "@alice"), "nothing is pending any more")
    finally:
        partitions.opened[index] = real


class FailsOnce:
    """A partition whose first commit without a message fails."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self.failed = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever a partition has
        return getattr(self._partition, name)

    def append(
        self, batch: list[Submission], now_ms: int, budget: ReadBudget | None = None
    ) -> list[Outcome]:
        """Fail, or append."""
        if not batch and not self.failed:
            self.failed = True
            raise StoreUnavailable("the test's disk")
        return self._partition.append(batch, now_ms, budget)

    begin = append


def _pending(partitions: OwnPartitions, log: str) -> list[tuple[str, int, str]]:
    pending = partitions.partition(partition_of(log)).pending()
    return [one for one in pending if one[0] == log]


async def test_the_recipients_home_dies_and_comes_back(cluster: Cluster) -> None:
    """Accepted messages wait for it; new ones wait for its answer."""
    alice, bob = await both(cluster)
    send_direct(alice, BOB, 1, 2)
    await bob.until(lambda: len(got(bob)) == 2, "the first")
    index = cluster.home("@bob").index
    # The two users are on the workers that are killed in this test or the one above; alice is not.
    sender = await TestClient.login(cluster.home("@alice"), ALICE)
    await cluster.kill(index)
    send_direct(sender, BOB, 1, 3)
    await cluster.start(index)
    await cluster.linked()
    await sender.acked("@alice", 3)
    back = await TestClient.login(cluster.home("@alice"), BOB)
    await back.join("@bob", last=1000)
    await back.until(lambda: len(got(back)) >= 5, "all")
    assert got(back) == [(ALICE, f"alice {n}") for n in (1, 2, 1, 2, 3)]


async def test_a_home_that_cannot_take_a_copy_gets_it_later(cluster: Cluster) -> None:
    """Its disk is full: accepted messages wait, in order."""
    alice, bob = await both(cluster)
    send_direct(alice, BOB, 1)
    await bob.until(lambda: len(got(bob)) == 1, "the first")
    home = cluster.home("@bob")
    home.sweeps = False  # otherwise it would check the disk and find space
    home.parts.home.writer.short_of_disk = frozenset(range(16))
    send_direct(alice, BOB, 2, 40)
    await alice.acked("@alice", 40)
    copies = cluster.home("@alice").parts.home.queues.direct
    assert copies is not None
    await until(lambda: any(flow.retrying for flow in copies.copies._flows.values()), "a refusal")
    assert len(got(bob)) == 1
    home.parts.home.writer.short_of_disk = frozenset()
    await bob.until(lambda: len(got(bob)) >= 40, "the others")
    assert got(bob) == [(ALICE, f"alice {n}") for n in range(1, 41)]


# --- who may --------------------------------------------------------------------------------------
async def test_who_is_not_taken_learns_nothing_of_why(cluster: Cluster) -> None:
    """Blocked, strangers refused, nobody allowed, full, disabled: one answer."""
    alice, bob = await both(cluster)
    root = await root_of(alice)
    logs = cluster.home("@bob").parts.home.accounts.logs
    answers = []

    async def refusal() -> None:
        alice.received = [e for e in alice.received if isinstance(e, Welcome)]
        send_direct(alice, BOB, 1)
        answers.append(await alice.expect(Refused))

    asked: list[requests.Request] = [
        requests.Block(ALICE, root),
        requests.Unblock(ALICE),
        requests.Prefer(1, 1),
        requests.Prefer(2, 1),
        requests.Prefer(0, 1),
    ]
    for number, request in enumerate(asked, 100):
        await ask(bob, number, request)
        if request not in (requests.Unblock(ALICE), requests.Prefer(0, 1)):
            await refusal()
    logs.inbox_entries_max = 1
    await refusal()
    logs.inbox_entries_max = 0
    assert len(answers) == 4
    assert set(answers) == {Refused("@alice", 1, ErrorCode.NOT_ACCEPTED, 0, "")}
    forget_refusals(alice)
    send_direct(alice, BOB, 1)
    await alice.acked("@alice", 1)


async def test_strangers_fill_half_of_an_inbox(cluster: Cluster) -> None:
    """Whoever has been written to still gets through, and the owner's own devices as well."""
    alice, bob = await both(cluster)
    carol = await TestClient.login(cluster.home("@carol"), "carol")
    logs = cluster.home("@bob").parts.home.accounts.logs
    send_direct(bob, "carol", 1)
    await bob.acked("@bob", 1)
    held = cluster.home("@bob").parts.home.partitions.head("@bob").seq
    logs.inbox_entries_max = 2 * held + 2
    send_direct(alice, BOB, 1)
    await alice.acked("@alice", 1)
    await until(
        lambda: cluster.home("@bob").parts.home.partitions.head("@bob").seq > held, "the copy"
    )
    send_direct(alice, BOB, 2)
    refused = await alice.expect(Refused)
    assert (refused.counter, refused.code) == (2, ErrorCode.NOT_ACCEPTED)
    send_direct(carol, BOB, 1)
    await carol.acked("@carol", 1)
    send_direct(bob, BOB, 2)
    await bob.acked("@bob", 2)


async def test_whoever_follows_the_inbox_sees_what_becomes_of_the_account(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Its changes are entries of the inbox, and no changes of a room: they do not affect
    permissions.
    """
    alice, bob = await both(cluster)
    await ask(bob, 7, requests.Block(ALICE, await root_of(alice)))
    await ask(bob, 8, requests.Unblock(ALICE))
    send_direct(alice, BOB, 1)
    await until(lambda: got(bob) == [(ALICE, "alice 1")], "the message")
    logged = [events.unpack(e.body) for e in bob.entries("@bob") if e.kind == Kind.SYSTEM]
    assert [type(event) for event in logged[-2:]] == [events.Blocked, events.Unblocked]
    assert "turn_failed" not in caplog.text


async def test_what_was_accepted_before_a_block_is_acknowledged_after_it(cluster: Cluster) -> None:
    """The home detects repeats first: a resend is not checked against the block."""
    alice, bob = await both(cluster)
    send_direct(alice, BOB, 1)
    first = await alice.acked("@alice", 1)
    await ask(bob, 7, requests.Block(ALICE, await root_of(alice)))
    again = await TestClient.login(cluster.home("@bob"), ALICE, secret=alice.secret)
    send_direct(again, BOB, 1, 2)
    assert (await again.expect(Ack)) == first
    assert (await again.expect(Refused)).counter == 2
    await ask(bob, 8, requests.Unblock(ALICE))
    forget_refusals(again)
    send_direct(again, BOB, 2)
    await again.acked("@alice", 2)


async def test_who_is_not_taken_still_erases_what_was_written(cluster: Cluster) -> None:
    """Erasing one's own message is allowed. A reason would be a message, and so would an edit."""
    alice, bob = await both(cluster)
    send_direct(alice, BOB, 1, 2)
    first, second = await alice.acked("@alice", 1), await alice.acked("@alice", 2)
    send_direct(bob, ALICE, 1)
    await bob.acked("@bob", 1)
    await ask(bob, 7, requests.Block(ALICE, await root_of(alice)))
    erase = Send("@bob", 3, Kind.REDACTION, "text/plain", b"", first.epoch, first.seq)
    alice.send_envelopes(erase)
    await alice.acked("@alice", 3)
    await bob.expect(EntryMessage, lambda e: e.kind == Kind.REDACTION and e.sender == ALICE)
    bob.send_envelopes(History(8, "@alice", False, 0, 100))
    page = await bob.expect(Page, about(8))
    assert [e.body for e in page.entries if e.sender == ALICE and e.kind != Kind.REDACTION] == [
        b"",
        b"alice 2",
    ]
    for kind, content_type, body in (
        (Kind.REDACTION, "text/plain", b"you"),
        (Kind.REDACTION, "you", b""),
        (Kind.EDIT, "text/plain", b"you"),
        (Kind.REACTION, "text/plain", b"you"),
    ):
        forget_refusals(alice)
        alice.send_envelopes(Send("@bob", 4, kind, content_type, body, second.epoch, second.seq))
        refused = await alice.expect(Refused)
        assert refused == Refused("@alice", 4, ErrorCode.NOT_ACCEPTED, 0, "")


async def test_known_are_those_to_whom_one_has_written(cluster: Cluster) -> None:
    alice, bob = await both(cluster)
    await ask(bob, 7, requests.Prefer(1, 1))
    send_direct(alice, BOB, 1)
    assert (await alice.expect(Refused)).code == ErrorCode.NOT_ACCEPTED
    send_direct(bob, ALICE, 1)
    await bob.acked("@bob", 1)
    forget_refusals(alice)
    send_direct(alice, BOB, 1)
    await alice.acked("@alice", 1)


async def test_order_is_kept_between_recipients(cluster: Cluster) -> None:
    """A message waits for those before it; a refused one does not use up its counter."""
    alice, bob = await both(cluster)
    alice.send_envelopes(
        Send("@nobodyhere", 1, 0, "", b"x"),
        Send("@bob", 2, 0, "", b"y"),
        Send("@alice", 3, 0, "", b"a note"),
    )
    refused = [await alice.expect(Refused, count=n) for n in (1, 2, 3)]
    assert [(e.counter, e.code) for e in refused] == [
        (1, ErrorCode.NOT_REGISTERED),
        (2, ErrorCode.UNKNOWN_OUTCOME),
        (3, ErrorCode.UNKNOWN_OUTCOME),
    ]
    forget_refusals(alice)
    send_direct(alice, BOB, 1)
    await alice.acked("@alice", 1)
    await bob.until(lambda: got(bob) == [(ALICE, "alice 1")], "the message")


async def test_guests_have_no_inbox(cluster: Cluster) -> None:
    await both(cluster)
    guest = await TestClient.login(cluster.workers[0], "~guest-1")
    guest.send_envelopes(
        Send("@bob", 1, 0, "", b"x"), Join(3, "@bob", None, 0, 0), Join(4, "@~guest-1", None, 0, 0)
    )
    refused = await guest.expect(Refused)
    assert (refused.log, refused.code) == ("@~guest-1", ErrorCode.NOT_ALLOWED)
    await guest.expect(Error, count=2)


async def test_nobody_reads_anothers_inbox(cluster: Cluster) -> None:
    """By no operation, and the answer does not reveal whether it exists."""
    alice, bob = await both(cluster)
    carol = await person(cluster, CAROL)
    send_direct(alice, BOB, 1, 3)
    await alice.acked("@alice", 3)
    await bob.until(lambda: len(got(bob)) == 3, "the messages")
    await carol.join("@carol")
    for number, log in enumerate(("@bob", "@alice", "@nobodyhere"), 1):
        n = number * 10
        carol.send_envelopes(
            Join(n, log, None, 0, 100),
            Join(n + 1, log, bytes(8), 0, 0),
            Who(n + 2, log),
            History(n + 3, log, True, 0, 100),
            History(n + 4, log, False, 0, 100),
            Devices(n + 5, log[1:], 0),
        )
        errors = [await carol.expect(Error, about(n + k)) for k in range(4)]
        assert [error.code for error in errors] == [
            ErrorCode.NOT_ALLOWED,
            ErrorCode.NOT_ALLOWED,
            ErrorCode.NOT_A_MEMBER,
            ErrorCode.BAD_REQUEST,
        ]
        page = await carol.expect(Page, about(n + 4))
        assert (page.entries, page.end) == ([], True), "no entry of carol"
        chain = await carol.expect(Chain, about(n + 5))
        assert len(chain.links) == (log != "@nobodyhere")
    assert not [e for e in carol.received if isinstance(e, EntryMessage) and e.log != "@carol"]


async def test_a_message_is_no_event_of_an_account(cluster: Cluster) -> None:
    """Whatever its content type: the kind decides, and no client may choose *system*."""
    alice, bob = await both(cluster)
    for counter, kind in ((1, Kind.MESSAGE), (2, Kind.SYSTEM)):
        alice.send_envelopes(
            Send("@bob", counter, int(kind), events.CONTENT_TYPE, events.pack(events.Removed()))
        )
    await alice.expect(Ack)
    assert (await alice.expect(Refused)).code == ErrorCode.NOT_SUPPORTED
    await bob.until(lambda: len(bob.entries("@bob")) == 1, "the message")
    for worker in cluster.workers.values():
        worker.parts.home.accounts.forget()
    again = await person(cluster, BOB)
    again.send_envelopes(Devices(5, BOB, 0))
    assert len((await again.expect(Chain)).links) == 1


async def test_who_has_left_for_good_has_still_written(cluster: Cluster) -> None:
    """An accepted message of a device that is removed meanwhile is delivered."""
    alice, bob = await both(cluster)
    home = cluster.home("@alice")
    lost = lost_on_the_way(home)
    send_direct(alice, BOB, 1)
    await alice.acked("@alice", 1)
    await until(lambda: len(lost) == 1, "a copy on its way")
    for worker in cluster.workers.values():
        worker.parts.home.queues.revoke(ALICE, [alice_key(alice)], lifted=False)
        worker.parts.member.forward.drop(ALICE, [alice_key(alice)])
    index = home.index
    await cluster.kill(index)
    await cluster.start(index)
    await cluster.linked()
    back = await TestClient.login(cluster.home("@alice"), BOB)
    await back.join("@bob", last=1000)
    await back.until(lambda: got(back) == [(ALICE, "alice 1")], "the message")
    assert bob.lost


def alice_key(alice: TestClient) -> bytes:
    """Return the id of a user's device."""
    from relay.chat.accounts.links import key_id
    from tests.support.devices import device

    return key_id(device(alice.name).public)


async def test_last_seen_is_told_to_whom_it_may_be(cluster: Cluster) -> None:
    """Kept when the home dies; others cannot tell hidden from never."""
    alice, bob = await both(cluster)
    carol = await person(cluster, CAROL)

    async def seen(asker: TestClient, number: int) -> tuple[bool, int]:
        content = requests.pack(requests.LastSeen())
        asker.send_envelopes(Account(number, BOB, content))
        done = await asker.expect(Done, lambda done: done.request == number)
        return answers.unpack_seen(done.content)

    assert await seen(alice, 51) == (False, 0), "bob has not written to alice"
    send_direct(bob, ALICE, 1)
    await bob.acked("@bob", 1)
    online, since_ms = await seen(alice, 52)
    assert online
    log = cluster.home("@bob").parts.services.reader_of("@bob")
    await until(lambda: log.seen("@bob") > 0, "it is stored")
    bob.disconnect()
    await bob.gone(cluster.other("@bob"))
    online, left_ms = await seen(alice, 53)
    assert not online
    await until(lambda: log.seen("@bob") >= since_ms, "it is stored")
    assert left_ms > 0
    assert await seen(carol, 51) == (False, 0)
    again = await person(cluster, BOB)
    await ask(again, 9, requests.Prefer(0, 2))
    assert await seen(alice, 54) == (False, 0)
    await ask(again, 10, requests.Prefer(0, 0))
    assert (await seen(carol, 52))[0]
    guest = await TestClient.login(cluster.workers[0], "~guest-2")
    guest.send_envelopes(Account(3, BOB, requests.pack(requests.LastSeen())))
    assert (await guest.expect(Error)).code == ErrorCode.NOT_ALLOWED


async def test_what_an_account_logs_reaches_its_inbox_as_messages_do(cluster: Cluster) -> None:
    """Each change is an entry of the inbox: followers miss nothing that comes after it."""
    alice, bob = await both(cluster)
    root = await root_of(alice)
    asked: list[requests.Request] = [
        requests.Prefer(0, 1),
        requests.Block(ALICE, root),
        requests.Unblock(ALICE),
        requests.Prefer(0, 2),
    ]
    for number, request in enumerate(asked, 1):
        bob.send_envelopes(Account(100 + number, "", requests.pack(request)))
        send_direct(bob, BOB, number)
        await bob.acked("@bob", number)
    await bob.until(lambda: len(got(bob)) == len(asked), "one's own notes")
    seqs = [entry.seq for entry in bob.entries("@bob")]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert len(seqs) > len(asked)
