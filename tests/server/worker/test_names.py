"""Names over several workers (rule 13): one holder, ghosts replaced, nothing granted too early."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from relay.bus.messages import Batch, Claim, Claimed, Event, Evict, Message, Submit
from relay.chat.entries import Submission
from relay.chat.names import INBOX_PREFIX
from relay.server.worker import session
from relay.server.worker.namebook import NameBook
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Error, Hello, Welcome, Who
from tests.support.cluster import until
from tests.support.hubs import Guest, Town, Worker


class _Port:
    """What a home says to a worker."""

    index = 1
    generation = 7

    def __init__(self) -> None:
        self.said: list[Message] = []

    def send(self, message: Message) -> None:
        self.said.append(message)

    def submit(self, tag: int, submission: Submission) -> None:
        self.said.append(Submit(tag, submission))

    def publish(self, message: Batch | Event) -> None:
        self.said.append(message)


def _book(town: Town, name: str) -> NameBook:
    return town.home(INBOX_PREFIX + name).hub.namebook


async def _ended_with(guest: Guest, code: CloseCode) -> None:
    await guest.ended()
    assert guest.closed is not None
    assert guest.closed.code == code


async def _refused(worker: Worker, name: str) -> None:
    guest = await Guest.connect(worker)
    guest.hello(name)
    await guest.told(Error, lambda e: e.code == ErrorCode.NAME_TAKEN)
    await _ended_with(guest, CloseCode.NAME_REFUSED)


async def test_one_holder_on_all_workers(town: Town) -> None:
    """A stranger is refused everywhere; once the holder is gone, anybody may have the name."""
    for worker in town.workers.values():
        holder = await Guest.arrive(worker, "alice")
        for other in town.workers.values():
            await _refused(other, "alice")
        holder.leave_town()
        await until(lambda: "alice" not in _book(town, "alice")._held, "the name to be free")


async def test_the_same_instance_replaces_its_ghost(town: Town) -> None:
    """From worker to worker and back: the ghost is told, and its end takes nothing away."""
    secret = secrets.token_bytes(16)
    ghost = await Guest.arrive(town.workers[0], "alice", secret=secret)
    await ghost.join("lobby")
    for turn in range(1, 6):
        worker = town.workers[turn % 2]
        fresh = await Guest.arrive(worker, "alice", secret=secret)
        await _ended_with(ghost, CloseCode.REPLACED)
        await fresh.join("lobby")
        await _refused(worker, "alice")
        ghost = fresh


async def test_the_name_outlives_its_home(town: Town) -> None:
    """A home dies; its successor hears who has the name before it answers anybody else."""
    home = town.home(INBOX_PREFIX + "alice")
    (other,) = [worker for worker in town.workers.values() if worker is not home]
    holder = await Guest.arrive(other, "alice")
    await town.kill(home.index)
    thief = await Guest.connect(other)
    thief.hello("alice")
    await town.start(home.index)
    await thief.told(Error, lambda e: e.code == ErrorCode.NAME_TAKEN)
    await holder.join("lobby")
    assert holder.closed is None


async def test_sessions_that_end_while_the_home_is_dead(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their claims are not said again; and nobody waits for ever to be logged in."""
    monkeypatch.setattr(session, "LOGIN_S", 0.5)
    home = town.home(INBOX_PREFIX + "alice")
    (other,) = [worker for worker in town.workers.values() if worker is not home]
    first = await Guest.arrive(other, "alice")
    await town.kill(home.index)
    waiting = await Guest.connect(other)
    waiting.hello("alice")
    await until(lambda: len(other.hub.logins._logins) == 2, "the claim to arrive")
    first.leave_town()
    await _ended_with(waiting, CloseCode.LOGIN_TIMEOUT)
    await until(lambda: not other.hub.logins._logins, "the claims to be forgotten")
    await town.start(home.index)
    await town.linked()
    await Guest.arrive(other, "alice")


async def test_names_of_a_dead_worker_are_free(town: Town) -> None:
    """A worker's sessions die with it, and their names with its link."""
    home = town.home(INBOX_PREFIX + "alice")
    (other,) = [worker for worker in town.workers.values() if worker is not home]
    await Guest.arrive(other, "alice")
    await town.kill(other.index)
    await Guest.arrive(home, "alice")


def test_a_home_that_begins_waits_for_who_is_silent() -> None:
    """Settled only when all live workers have spoken, or their time is up."""
    spoken: set[int] = set()
    now = [0.0]
    port = _Port()
    answers = port.said

    def silent(announced: set[int]) -> bool:
        spoken.update(announced)
        return 7 not in announced

    book = NameBook(lambda: now[0], silent)
    stranger = Claim(1, "alice", bytes(16), False, 1)
    book.claim(port, stranger)
    book.settle()
    assert answers == []
    book.claim(port, Claim(2, "alice", b"s" * 16, True, 2))  # it has had the name since before
    assert answers == [Claimed(2, True)]
    book.announced(port)
    assert answers == [Claimed(2, True), Claimed(1, False)]

    late = NameBook(lambda: now[0], lambda _: True)
    answers.clear()
    late.claim(port, stranger)
    now[0] += 2.0
    late.settle()
    assert answers == [Claimed(1, True)], "a worker that says nothing is not waited for longer"


def test_a_ghost_that_is_spoken_of_last_does_not_replace_the_living() -> None:
    """Its worker was stopped, or its link lost: its claim comes late, its connection is older."""
    book = NameBook(lambda: 0.0, lambda _: False)
    here, there = _Port(), _Port()
    secret = b"s" * 16
    book.claim(there, Claim(1, "alice", secret, False, 100))
    book.claim(here, Claim(1, "alice", secret, False, 200))
    assert there.said == [Claimed(1, True), Evict(1)]
    book.claim(there, Claim(1, "alice", secret, True, 100))  # EVICT was lost with the link
    book.claim(there, Claim(2, "alice", secret, False, 150))  # a HELLO that lay in a stopped worker
    assert there.said[2:] == [Claimed(1, False), Claimed(2, False)]
    assert here.said == [Claimed(1, True)], "the living one stays"


async def test_hello_refused(village: Town) -> None:
    """Bad names, a second HELLO, and anything before it, end the connection with its code."""
    worker = village.workers[0]
    for name in ("", "x", "No Name", "-dash", "a" * 33):
        guest = await Guest.connect(worker)
        if len(name) > 32 or not name:
            guest.say(Who(1, "lobby"))
            expected = CloseCode.PROTOCOL
        else:
            guest.hello(name)
            expected = CloseCode.NAME_REFUSED
        await _ended_with(guest, expected)
    guest = await Guest.arrive(worker, "alice")
    guest.say(Hello("alice", guest.secret, guest.producer, "", "guest"))
    await _ended_with(guest, CloseCode.PROTOCOL)
    await until(lambda: not worker.hub.sessions, "all sessions gone")
    assert worker.hub.logged_in == 0
    assert not worker.hub.logins._logins


async def test_a_login_storm_for_one_name(town: Town) -> None:
    """Fifty at once: one is welcome, all others are told that the name is taken."""
    guests = await asyncio.gather(
        *(Guest.connect(town.workers[number % 2]) for number in range(50))
    )
    for guest in guests:
        guest.hello("alice")
    await until(
        lambda: all(any(isinstance(e, Welcome | Error) for e in g.said) for g in guests),
        "an answer for each",
    )
    assert sum(any(isinstance(e, Welcome) for e in g.said) for g in guests) == 1
