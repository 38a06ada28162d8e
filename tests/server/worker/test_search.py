"""Search in rooms and in one's own direct messages, with the permissions of reading; several
workers.
"""

from __future__ import annotations

from functools import partial

import pytest

from relay import limits
from relay.chat.entries import Kind
from relay.chat.partition import partition_of
from relay.chat.rooms import requests as rooms
from relay.limit_settings import Limits
from relay.server.metrics import Budget
from relay.server.worker.connection.requests.search import READ_PER_TURN
from relay.server.worker.member.reply import Reply
from relay.server.worker.process.main import TICK_S
from relay.server.worker.process.storage import indexing, searches
from relay.store.errors import StoreUnavailable
from relay.store.search import files
from relay.store.search.finder import Finder
from relay.store.search.finder import Found as Found_
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Error, Found, Room, Search, Send
from tests.support.cluster import COMMAND_S, DEADLINE_S, until
from tests.support.standing_clock import StandingClock
from tests.support.workers import Cluster, TestClient, Worker

ROOM = "lobby"


class Asker:
    """Searches as a client does, page by page."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self._number = 100

    async def page(self, text: str, log: str = ROOM, before: int = 0, count: int = 50) -> Found:
        while True:
            self._number += 1
            number = self._number
            self.client.send_envelopes(Search(number, log, text, before, count))
            await self.client.until(partial(self._answer, number), "the answer")
            answer = self._answer(number)
            if isinstance(answer, Found):
                return answer
            assert answer is not None
            assert answer.code == ErrorCode.UNAVAILABLE  # the index is just being replaced

    async def error(self, text: str, log: str = ROOM, count: int = 50) -> Error:
        self._number += 1
        number = self._number
        self.client.send_envelopes(Search(number, log, text, 0, count))
        return await self.client.expect(Error, lambda error: error.request == number)

    def _answer(self, number: int) -> Found | Error | None:
        for one in self.client.received:
            if isinstance(one, Found | Error) and one.request == number:
                return one
        return None

    async def found(self, text: str, log: str = ROOM) -> list[str]:
        """Return all texts, newest first, of all pages."""
        texts: list[str] = []
        before, end = 0, False
        while not end:
            page = await self.page(text, log, before, count=7)
            texts += [entry.body.decode() for entry in page.entries]
            before, end = page.next, page.end
        return texts

    async def indexed(self, seq: int, log: str = ROOM) -> None:
        """Wait until the index has caught up."""
        while (await self.page("word", log)).indexed < seq:
            pass


async def says(client: TestClient, counter: int, text: str, log: str = ROOM) -> int:
    client.send_envelopes(Send(log, counter, 0, "text/plain", text.encode()))
    name = log if not log.startswith("@") else f"@{client.name}"
    return (await client.acked(name, counter)).seq


async def three(cluster: Cluster) -> tuple[TestClient, Asker]:
    """A user who has sent three messages, and a user on a worker that is not the home."""
    ann = await TestClient.login(cluster.home(ROOM), "ann")
    for counter, text in enumerate(("tea at four", "coffee at five", "Tea, again"), 1):
        await says(ann, counter, text)
    bob = await TestClient.login(cluster.other(ROOM), "bob")
    await bob.join(ROOM)
    asker = Asker(bob)
    await asker.indexed(3)
    return ann, asker


async def test_a_room_is_searched_from_any_worker(cluster: Cluster) -> None:
    _, asker = await three(cluster)
    page = await asker.page("TEA")
    assert [entry.body for entry in page.entries] == [b"Tea, again", b"tea at four"]
    assert [entry.seq for entry in page.entries] == [3, 1]
    assert (page.log, page.end, page.indexed) == (ROOM, True, 3)
    assert await asker.found('"at five"') == ["coffee at five"]
    assert await asker.found("milk") == []
    assert await asker.found("tea", "Lobby") == ["Tea, again", "tea at four"]


async def test_what_was_edited_and_erased(cluster: Cluster) -> None:
    """Edits are found, erased messages are not, also before the index is updated."""
    ann, asker = await three(cluster)
    epoch = (await ann.acked(ROOM, 1)).epoch
    ann.send_envelopes(Send(ROOM, 4, int(Kind.EDIT), "text/plain", b"chai at four", epoch, 1))
    await ann.acked(ROOM, 4)
    await asker.indexed(4)
    [edit] = (await asker.page("chai")).entries
    assert (edit.kind, edit.about_seq, edit.body) == (Kind.EDIT, 1, b"chai at four")
    assert await asker.found("tea") == ["Tea, again"]
    for worker in cluster.workers.values():
        worker._stores.indexing.tick = lambda: None  # type: ignore[method-assign]
    ann.send_envelopes(Send(ROOM, 5, int(Kind.REDACTION), "", b"", epoch, 1))
    await ann.acked(ROOM, 5)
    assert await asker.found("chai") == []
    assert (await asker.page("tea")).indexed == 4


async def test_only_what_one_may_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A user who does not follow a room finds nothing; nor does one who is removed during the
    search.
    """
    async with Cluster(tmp_path_factory.mktemp("w"), 2, rights=True) as cluster:
        ann = await TestClient.login(cluster.home(ROOM), "ann")
        await says(ann, 1, "the word")
        bob = await TestClient.login(cluster.other(ROOM), "bob")
        asker = Asker(bob)
        assert (await asker.error("word")).code == ErrorCode.NOT_A_MEMBER
        await bob.join(ROOM)
        await asker.indexed(2)
        assert await asker.found("word") == ["the word"]
        searching = cluster.other(ROOM)._stores.searches
        find, held = searching.find, Reply[Found_ | None]()

        def held_up(
            log: str, match: str, after: int, before: int, count: int
        ) -> Reply[Found_ | None]:
            reply = find(log, match, after, before, count)
            assert reply is not None
            reply.then(answers.append)
            return held

        answers: list[Found_ | None] = []
        searching.find = held_up  # type: ignore[method-assign]
        bob.send_envelopes(Search(500, ROOM, "word", 0, 50))
        await until(lambda: answers, "the answer of the index")
        kick = rooms.pack(rooms.Kick("bob", ""), rooms.ANYTHING_SEEN)
        ann.send_envelopes(Room(9, ROOM, kick))
        await until(lambda: not cluster.session("bob").subscriptions.by_log, "bob to be put out")
        assert answers[0] is not None
        assert answers[0].seqs == [2]
        held.resolve(answers[0])
        error = await bob.expect(Error, lambda error: error.request == 500)
        assert error.code == ErrorCode.NOT_A_MEMBER


async def test_what_is_erased_while_a_page_is_read_is_not_found(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is read a few messages at a time, and filtered by their state at its end."""
    count = 2 * READ_PER_TURN - 1
    ann = await TestClient.login(cluster.home(ROOM), "ann")
    ann.send_envelopes(*[Send(ROOM, n, 0, "text/plain", b"word") for n in range(1, count + 1)])
    epoch = (await ann.acked(ROOM, count)).epoch
    bob = await TestClient.login(cluster.other(ROOM), "bob")
    await bob.join(ROOM)
    await Asker(bob).indexed(count)
    catchup = cluster.other(ROOM).parts.member.catchup
    turns: list[Reply[None]] = []

    def turn() -> Reply[None]:
        turns.append(Reply())
        return turns[-1]

    monkeypatch.setattr(catchup, "turn", turn)
    monkeypatch.setattr(catchup, "turn_of_heavy", turn)
    bob.send_envelopes(Search(100_000, ROOM, "word", 0, 100))
    await until(lambda: turns, "the request for a turn")
    turns[0].resolve(None)
    await until(lambda: len(turns) == 2, "the request for another one")
    ann.send_envelopes(Send(ROOM, count + 1, int(Kind.REDACTION), "", b"", epoch, count))
    await ann.acked(ROOM, count + 1)
    turns[1].resolve(None)
    found = await bob.expect(Found, lambda one: one.request == 100_000)
    assert [entry.seq for entry in found.entries] == list(range(count - 1, 0, -1))
    assert len(turns) == 2


async def test_ones_own_direct_messages_and_nobody_elses(cluster: Cluster) -> None:
    alice = await TestClient.login(cluster.workers[0], "alice")
    bob = await TestClient.login(cluster.workers[1], "bob")
    carol = await TestClient.login(cluster.workers[0], "carol")
    await says(alice, 1, "a word for bob", "@bob")
    await says(carol, 1, "a word of carol", "@bob")
    await says(alice, 2, "a word for carol", "@carol")
    for client in (alice, bob):
        await client.join(f"@{client.name}")
    asker = Asker(bob)
    while len(await asker.found("word", "@bob")) < 2:
        pass
    assert await asker.found("word", "@alice") == ["a word for bob"]
    assert await asker.found("word", "@carol") == ["a word of carol"]
    other = Asker(alice)
    await other.indexed(3, "@alice")
    assert await other.found("word", "@carol") == ["a word for carol"]
    assert await other.found("carol", "@bob") == []  # not bob's messages with carol


def position(finder: Finder, log: str) -> int | None:
    """Return up to where a log is in the index; None: its file is being truncated."""
    try:
        return finder.find(log, "word", 0, 9, 1).indexed
    except StoreUnavailable:
        return None


async def test_changes_of_an_account_are_not_left_out(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are indexed later, and have no words: nobody is told that messages were not searched."""
    monkeypatch.setattr(indexing, "GATHER_ACCOUNTS_S", 3600.0)
    monkeypatch.setattr(indexing, "SLICE_S", DEADLINE_S)  # or the next one continues it
    partition = partition_of("@alice")
    near = next(name for n in range(999) if partition_of(f"@{(name := f'near{n}')}") == partition)
    await TestClient.login(cluster.workers[0], near)
    bob = await TestClient.login(cluster.workers[1], "bob")
    await says(bob, 1, "so this partition has its slice at once", f"@{near}")
    home = cluster.home("@alice")._stores
    finder = Finder(home._directory.search_path(partition))
    # An overloaded worker has a slice every two seconds, for one of its partitions.
    await until(lambda: position(finder, f"@{near}") == 2, "a slice", COMMAND_S)
    follower = home.indexing._followers[partition]
    await until(lambda: not follower.unfinished, "its end", COMMAND_S)

    alice = await TestClient.login(cluster.workers[0], "alice")
    await alice.join("@alice")
    asker = Asker(alice)
    assert (await asker.page("word", "@alice")).indexed == 1
    await until(lambda: position(finder, "@alice") == 0, "the index, which has not seen it")
    finder.close()
    await says(bob, 2, "a word for alice", "@alice")
    await asker.indexed(2, "@alice")
    assert await asker.found("word", "@alice") == ["a word for alice"]


async def test_pages_are_bounded_by_bytes(cluster: Cluster) -> None:
    """Large messages take several pages, and each comes once."""
    ann = await TestClient.login(cluster.home(ROOM), "ann")
    for counter in range(1, 8):
        await says(ann, counter, f"word {counter} ".ljust(30_000, "."))
    await ann.join(ROOM)
    asker = Asker(ann)
    await asker.indexed(7)
    page = await asker.page("word")
    assert len(page.entries) < 3
    assert not page.end
    assert [text.split()[1] for text in await asker.found("word")] == list("7654321")
    assert (await asker.page("word", count=65_535)).next == page.next


@pytest.mark.parametrize("text", ["!!!", '"', "***", "\0"])
async def test_without_a_word_there_is_nothing_to_search_for(cluster: Cluster, text: str) -> None:
    ann = await TestClient.login(cluster.workers[0], "ann")
    await ann.join(ROOM)
    error = await Asker(ann).error(text)
    assert (error.code, error.text) == (
        ErrorCode.BAD_REQUEST,
        "there is no word to search for",
    )
    assert (await Asker(ann).error("word", count=0)).code == ErrorCode.BAD_REQUEST


async def test_searches_are_bounded_by_budget_and_by_how_many_wait(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Limits(loopback_exempt=False, work_per_s_per_user=4)
    needs: dict[str, object] = {"clock": StandingClock()}  # or more would be found meanwhile
    async with Cluster(tmp_path_factory.mktemp("w"), 1, limits=given, needs=needs) as cluster:
        worker = cluster.workers[0]
        ann = await TestClient.login(worker, "ann")
        await ann.join(ROOM)
        ann.send_envelopes(*[Search(n, ROOM, "word", 0, 1) for n in range(1, 41)])
        await ann.until(lambda: len(replies(ann)) == 40, "all answers")
        errors = [one for one in replies(ann) if isinstance(one, Error)]
        assert 0 < len(errors) < 40
        assert {error.code for error in errors} == {ErrorCode.BUSY}
        assert all(error.arg > 0 for error in errors)
        assert worker.parts.services.budgets.refusals.counts[Budget.WORK_PER_USER] == len(errors)

    monkeypatch.setattr(searches, "WAITING_MAX", 0)
    async with Cluster(tmp_path_factory.mktemp("w"), 1) as cluster:
        ann = await TestClient.login(cluster.workers[0], "ann")
        await ann.join(ROOM)
        error = await Asker(ann).error("word")
        assert (error.code, error.arg) == (ErrorCode.BUSY, limits.RETRY_MS)


def replies(client: TestClient) -> list[Found | Error]:
    return [one for one in client.received if isinstance(one, Found | Error)]


async def test_an_index_that_cannot_be_read_is_unavailable(cluster: Cluster) -> None:
    ann, asker = await three(cluster)
    home = cluster.home(ROOM)._stores
    await until(lambda: not home.indexing.behind, "all to be indexed")
    for index in range(16):
        path = home._directory.search_path(index)
        if path.exists():
            files.remove(path)  # with its WAL, which alone may have all; and the open one is read
            path.write_bytes(b"this is no index at all" * 1000)
    error = await asker.error("tea")
    assert (error.code, error.arg) == (ErrorCode.UNAVAILABLE, limits.RETRY_MS)
    await ann.join(ROOM)  # everything else goes on
    # Its writer creates it anew as soon as there is an entry to index.
    assert sum(worker._stores.indexing.anew() for worker in cluster.workers.values()) == 16
    await asker.indexed(3)
    assert await asker.found("tea") == ["Tea, again", "tea at four"]


async def test_switched_off_nothing_is_left_and_on_all_is_made_anew(cluster: Cluster) -> None:
    _, asker = await three(cluster)
    directory = cluster.home(ROOM)._stores._directory.path / "search"
    for worker in cluster.workers.values():
        worker._stores.search(on=False)
    error = await asker.error("tea")
    assert (error.code, error.text) == (ErrorCode.NOT_SUPPORTED, "this server has no search")
    await until(lambda: not list(directory.iterdir()), "the indexes to be removed")
    ann = await TestClient.login(cluster.home(ROOM), "anna")
    await says(ann, 1, "tea, unnoticed")
    for worker in cluster.workers.values():
        worker._stores.search(on=True)
    await asker.indexed(4)
    assert len(await asker.found("tea")) == 3


async def test_the_index_follows_a_new_home(cluster: Cluster) -> None:
    """Killed between the commits and the index update: the next home catches up."""
    ann, asker = await three(cluster)
    home: Worker = cluster.home(ROOM)
    home._stores.indexing.tick = lambda: None  # type: ignore[method-assign]
    await says(ann, 4, "tea, not indexed yet")
    index = home.index
    await cluster.kill(index)
    await cluster.start(index)
    await cluster.linked()
    await asker.indexed(4)
    assert len(await asker.found("tea")) == 3


async def test_a_disk_at_its_reserve_takes_nothing_for_the_index(cluster: Cluster) -> None:
    ann, asker = await three(cluster)
    stores = cluster.home(ROOM)._stores
    await until(lambda: not stores.indexing.behind, "all to be indexed")
    stores.indexing.short_of_disk = lambda: frozenset(range(16))
    await says(ann, 4, "more tea")
    for _ in range(20):
        stores.indexing.tick()
    assert stores.indexing.behind == 1
    assert (await asker.page("tea")).indexed == 3
    stores.indexing.short_of_disk = frozenset
    await asker.indexed(4)


def test_the_index_takes_a_part_of_a_core_at_most() -> None:
    assert indexing.SLICE_S <= TICK_S / 4
