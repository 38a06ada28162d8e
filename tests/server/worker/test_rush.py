"""Many clients log in at once: what those who are back receive costs few records, and nobody loses
or waits for anything but that.
"""

from __future__ import annotations

import contextlib
import socket
import time

from relay.limits import OUTBOX_BYTES_MAX
from relay.server.worker.delivery.outbox import ASIDE_REST_S_MAX
from relay.server.worker.delivery.rush import CALM_S, LOGINS_MIN, Rush
from relay.server.worker.wakeup import FAR
from relay.wire.envelopes import EntryMessage, Send
from tests.support.cluster import DEADLINE_S, until
from tests.support.workers import Cluster, TestClient, Worker

LOG = "lobby"
MEMBERS = 8
MESSAGES = 10


def test_only_logins_beside_many_others_are_a_rush() -> None:
    rush = Rush()
    assert rush.logged_in(0.0, LOGINS_MIN - 1) == 0
    assert rush.until < 0.0
    first = rush.logged_in(1.0, LOGINS_MIN)
    assert first != 0
    just_before = 1.0 + 0.9 * CALM_S
    assert rush.logged_in(just_before, 0) == first, "it lasts, but this login does not prolong it"
    assert rush.until == 1.0 + CALM_S
    assert rush.logged_in(1.0 + CALM_S, 0) == 0
    second = rush.logged_in(9.0, LOGINS_MIN)
    assert second not in {0, first}, "who came in the first one is not set aside in the second"


async def test_idle_connections_are_no_rush(single: Cluster) -> None:
    """Otherwise a few of them, which cost nothing, would delay messages to all who log in."""
    worker = single.workers[0]
    admission, rush = worker.parts.services.budgets.admission, worker.parts.flusher._rush

    async def many_come() -> None:
        for _ in range(LOGINS_MIN):
            await TestClient.connect(worker)

    await many_come()
    admission.patience_s = 0.0  # they have been silent for longer than the next login takes
    await TestClient.login(worker, "alice")
    assert (single.session("alice").outbox.rush, rush.number) == (0, 0)
    admission.patience_s = DEADLINE_S
    await many_come()  # who was silent for so long once counts no more
    await TestClient.login(worker, "bob")
    assert single.session("bob").outbox.rush == rush.number == 1


class Watch:
    """The clock of a worker's flusher and rush, which a test holds still."""

    def __init__(self, worker: Worker) -> None:
        flusher = worker.parts.flusher
        self._began = time.monotonic()
        self._skipped_s = 0.0
        flusher._clock = lambda: self._began + self._skipped_s
        self._rush = flusher._rush
        worker.parts.services.budgets.admission._rush = Rush()  # real logins change nothing here
        self._wakeup = worker.parts.wakeup

    def rush(self) -> None:
        """Let a rush begin that lasts to the end of the test, unless it is ended."""
        self._rush.logged_in(self._began + 3600.0, LOGINS_MIN)

    def end_rush(self) -> None:
        self._rush.until = float("-inf")

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self._skipped_s += seconds
        self._wakeup.request()


async def _room(worker: Worker, watch: Watch) -> tuple[list[TestClient], TestClient, TestClient]:
    """Return members that logged in in a rush, one who is longer there, and a sender."""
    sender = await TestClient.login(worker, "sender")
    older = await TestClient.login(worker, "older")
    members = [await TestClient.login(worker, f"member{number}") for number in range(MEMBERS)]
    watch.rush()
    sessions = worker.parts.connections.sessions
    for session in sessions:
        if session.name.startswith("member"):
            session.outbox.rush = watch._rush.number
    for client in (older, *members):
        await client.join(LOG)
    return members, older, sender


async def _say(sender: TestClient, counters: range, size: int = 1) -> None:
    """Send one after the other: each is committed, and in the outboxes, before the next one."""
    for counter in counters:
        sender.send_envelopes(Send(LOG, counter, 0, "", bytes(size)))
        await sender.acked(LOG, counter)


def _seqs(client: TestClient) -> list[int]:
    return [each.seq for each in client.received if isinstance(each, EntryMessage)]


def _sealed(cluster: Cluster) -> list[int]:
    """Return how many records were written to each member."""
    sessions = [cluster.session(f"member{number}") for number in range(MEMBERS)]
    return [session.channel.connection._send.sequence for session in sessions]


async def test_messages_of_a_rush_share_records(single: Cluster) -> None:
    """Who was there before gets each message at once; who came in the rush gets them together."""
    worker = single.workers[0]
    watch = Watch(worker)
    members, older, sender = await _room(worker, watch)
    parts, flusher = worker.parts, worker.parts.flusher
    watch.skip(ASIDE_REST_S_MAX)
    await until(
        lambda: (
            not flusher.aside
            and not parts.member.feeds.to_distribute
            and parts.home.rosters.due_at == FAR
        ),
        "all to be told who is here",
    )
    before = _sealed(single)
    flusher.aside_at = float("inf")
    await _say(sender, range(1, MESSAGES + 1))
    wanted = list(range(1, MESSAGES + 1))
    await until(lambda: _seqs(older) == wanted, "the one who was there before to have all")
    assert _sealed(single) == before, "written before its time"
    flusher.aside_at = 0.0
    watch.skip(ASIDE_REST_S_MAX)
    await until(lambda: all(_seqs(member) == wanted for member in members), "all, in order")
    assert _sealed(single) == [count + 1 for count in before]


async def test_an_answer_is_not_set_aside(single: Cluster) -> None:
    """Nor what a member is to have received before it."""
    worker = single.workers[0]
    watch = Watch(worker)
    members, _, sender = await _room(worker, watch)
    worker.parts.flusher.aside_at = float("inf")
    await _say(sender, range(1, 3))
    members[0].send_envelopes(Send(LOG, 1, 0, "", b"mine"))
    await members[0].acked(LOG, 1)
    assert _seqs(members[0])[:2] == [1, 2]
    assert not any(map(_seqs, members[1:]))


async def test_all_is_written_when_the_rush_has_ended(single: Cluster) -> None:
    """With the next message at the latest."""
    worker = single.workers[0]
    watch = Watch(worker)
    members, older, sender = await _room(worker, watch)
    worker.parts.flusher.aside_at = float("inf")
    await _say(sender, range(1, 4))
    await until(lambda: _seqs(older) == [1, 2, 3], "the messages to be distributed")
    watch.end_rush()
    await _say(sender, range(4, 5))
    for client in (older, *members):
        await until(lambda of=client: _seqs(of) == [1, 2, 3, 4], "all, in order")  # type: ignore[misc]
    assert not worker.parts.flusher.aside


async def test_nobody_falls_behind_for_being_set_aside(single: Cluster) -> None:
    """What is more than an outbox holds is written before."""
    worker = single.workers[0]
    watch = Watch(worker)
    members, older, sender = await _room(worker, watch)
    worker.parts.flusher.aside_at = float("inf")
    size = 8000
    count = 3 * OUTBOX_BYTES_MAX // size
    await _say(sender, range(1, count + 1), size)
    await until(lambda: _seqs(older) == list(range(1, count + 1)), "the messages")
    assert worker.parts.services.stalled.fell_behind == 0
    worker.parts.flusher.aside_at = 0.0
    watch.skip(ASIDE_REST_S_MAX)
    wanted = list(range(1, count + 1))
    await until(lambda: all(_seqs(member) == wanted for member in members), "all, in order")


async def test_a_login_among_many_is_set_aside(single: Cluster) -> None:
    """Over real sockets: others connect and say nothing; one logs in, and only that is a rush."""
    worker = single.workers[0]
    flusher = worker.parts.flusher
    admission = worker.parts.services.budgets.admission
    before = await TestClient.login(worker, "before")
    await before.join(LOG)
    with contextlib.ExitStack() as stack:
        for _ in range(LOGINS_MIN):
            stack.enter_context(socket.create_connection(("127.0.0.1", worker.port)))
        await until(lambda: admission.unauthenticated == LOGINS_MIN, "the silent ones")
        assert flusher._rush.number == 0, "nobody has logged in"
        member = await TestClient.login(worker, "member")
        assert single.session("member").outbox.rush != 0
        assert single.session("before").outbox.rush == 0
        await member.join(LOG)
        await _say(before, range(1, 4))
        await until(lambda: _seqs(member) == [1, 2, 3], "the messages, by and by")
