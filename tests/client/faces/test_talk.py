"""The usual operations of a client, with both clients."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay import BlockingClient, Client
from relay.chat.entries import Cursor
from relay.client import answer_watch, event_queue
from relay.client.errors import ClientClosed, MessageTooLong
from relay.client.events import (
    Event,
    Live,
    Message,
    RoomChanged,
    RosterChanged,
    State,
    StateChanged,
    Stored,
)
from relay.client.refusals import (
    AlreadyJoined,
    IdConflict,
    NameInvalid,
    NotAMember,
    NotRegistered,
    UnknownOutcome,
)
from tests.client.faces.adapters import WAIT_S, Face
from tests.support.cluster import Relay

Connect = Callable[..., Face]


def messages(face: Face, count: int, wait_s: float = WAIT_S) -> list[Message]:
    """Take events until so many messages came, each within ``wait_s``."""
    found: list[Message] = []
    while len(found) < count:
        event = face.next(wait_s)
        assert event is not None, f"only {len(found)} of {count} messages"
        if isinstance(event, Message):
            found.append(event)
    return found


def _joined(event: RosterChanged, name: str) -> bool:
    return any(member.name == name for member in event.joined)


def test_two_talk(connect: Connect, room: str) -> None:
    """Both get both messages in one order, the sender its own as well."""
    alice, bob = connect("talk-a"), connect("talk-b")
    alice.join(room)
    bob.join(room)
    first = alice.send(room, "hello")
    second = bob.send(room, b"\x00\xff", "application/octet-stream")
    assert second == Stored(first.epoch, first.seq + 1)
    for face in (alice, bob):
        one, two = messages(face, 2)
        assert (one.text, one.sender, one.seq) == ("hello", "talk-a", first.seq)
        assert (two.body, two.content_type) == (b"\x00\xff", "application/octet-stream")
        assert face.client.cursors[room] == Cursor(second.epoch, second.seq)
    assert alice.client.state is State.ONLINE
    assert alice.client.server_fingerprint


def test_states_and_live_are_events(connect: Connect, room: str) -> None:
    """Connecting, online, live, and who is in the room."""
    alice = connect("events-a", display="Alice A")
    alice.join(room)
    connect("events-b").join(room)
    seen: list[Event] = []
    while not any(isinstance(e, RosterChanged) and _joined(e, "events-b") for e in seen):
        event = alice.next()
        assert event is not None
        seen.append(event)
    assert StateChanged(State.CONNECTING) in seen
    assert StateChanged(State.ONLINE) in seen
    assert Live(room, 0) in seen
    members = alice.who(room)
    assert [(m.name, m.display, m.connections) for m in members.members] == [
        ("events-a", "Alice A", 1),
        ("events-b", "", 1),
    ]


def test_history_on_join_and_by_pages(connect: Connect, room: str) -> None:
    """The last ones, everything since, from a cursor; pages back and forward, and their end."""
    alice = connect("history-a")
    stored = [alice.send(room, f"m{n}") for n in range(10)]
    bob = connect("history-b")
    joined = bob.join(room, 3)
    assert joined.head == stored[-1].cursor
    assert [m.text for m in messages(bob, 3)] == ["m7", "m8", "m9"]
    newest = bob.history(room, count=4)
    assert [m.text for m in newest.entries] == ["m6", "m7", "m8", "m9"]
    assert not newest.end
    older = bob.history(room, before=newest.next, count=100)
    begun, *first = older.entries
    assert isinstance(begun, RoomChanged)
    assert [m.text for m in first] == [f"m{n}" for n in range(6)]
    assert older.end
    forward = bob.history(room, after=stored[7].seq, count=100)
    assert [m.text for m in forward.entries] == ["m8", "m9"]
    assert forward.end
    assert bob.leave(room) == stored[-1].cursor
    bob.join(room, cursor=stored[4].cursor)
    assert [m.text for m in messages(bob, 5)] == [f"m{n}" for n in range(5, 10)]
    bob.leave(room)
    bob.join(room, since=0)
    assert [m.text for m in messages(bob, 10)] == [f"m{n}" for n in range(10)]


def test_posts_are_stored_in_order(connect: Connect, room: str) -> None:
    """Many more than the window; each has its outcome."""
    alice = connect("posts-a", window=16)
    outcomes = [alice.post(room, f"m{n}") for n in range(500)]
    alice.flush()
    assert [outcome().seq for outcome in outcomes] == list(range(2, 502))
    assert alice.client.unacknowledged == 0
    alice.join(room, since=0)
    assert [m.text for m in messages(alice, 500)] == [f"m{n}" for n in range(500)]


def test_refusals_are_typed(connect: Connect, room: str) -> None:
    """And the connection goes on."""
    alice = connect("refusals-a")
    with pytest.raises(NameInvalid):
        alice.send("no such room", "x")
    with pytest.raises(NotAMember):
        alice.who(room)
    with pytest.raises(NotAMember):
        alice.leave(room)
    with pytest.raises(MessageTooLong):
        alice.send(room, bytes(32_769))
    alice.join(room)
    with pytest.raises(AlreadyJoined):
        alice.join(room)
    assert alice.send(room, bytes(32_768)).seq == 2


def test_flush_reports_the_first_failed_post(connect: Connect, room: str) -> None:
    """The name does not exist: the server refuses such sends."""
    alice = connect("flush-a")
    alice.post(room, "fine")
    failed = alice.post("@somebody", "refused")
    with pytest.raises(Exception, match="NOT_REGISTERED"):
        alice.flush()
    with pytest.raises(Exception, match="NOT_REGISTERED"):
        failed()
    alice.flush()
    assert alice.send(room, "goes on").seq == 3


def test_a_saved_identity_sends_exactly_once(connect: Connect, room: str) -> None:
    """A program that was stopped before its acknowledgement sends again; it is stored once."""
    first = connect("saved-a")
    saved = first.client.identity
    stored = first.send(room, "one")
    second = first.send(room, "two")
    first.close()
    again = connect("saved-a", identity=type(saved)(saved.secret, {room: 1}, saved.account))
    assert again.send(room, "one") == stored
    assert again.send(room, "two") == second
    assert again.send(room, "three").seq == second.seq + 1
    assert again.client.identity.counters == {room: 4}
    again.close()
    wrong = connect("saved-a", identity=type(saved)(saved.secret, {room: 1}, saved.account))
    with pytest.raises(IdConflict) as caught:
        wrong.send(room, "another text")
    assert caught.value.seq == stored.seq


def test_an_id_that_the_server_does_not_know_is_an_unknown_outcome(
    connect: Connect, room: str
) -> None:
    """The saved counter belongs to a lost log: the program decides, and numbering begins anew."""
    saved = connect("unknown-a").client.identity
    late = connect("unknown-a", identity=type(saved)(saved.secret, {room: 7}, saved.account))
    with pytest.raises(UnknownOutcome):
        late.send(room, "sent before?")
    assert late.send(room, "certainly new").seq == 2


def test_saved_cursors_go_on_where_the_program_stood(connect: Connect, room: str) -> None:
    """Taken messages do not come again; others do."""
    alice = connect("cursors-a")
    reader = connect("cursors-b")
    reader.join(room)
    for n in range(6):
        alice.send(room, f"m{n}")
    assert [m.text for m in messages(reader, 2)] == ["m0", "m1"]
    cursor = reader.client.cursors[room]
    reader.close()
    again = connect("cursors-b")
    again.join(room, cursor=cursor)
    assert [m.text for m in messages(again, 4)] == ["m2", "m3", "m4", "m5"]


def test_a_slow_application_loses_nothing(connect: Connect, room: str) -> None:
    """It takes no events while more arrive than it holds, sends meanwhile, and gets them all."""
    alice = connect("slow-a", window=1024)
    reader = connect("slow-b")
    reader.join(room)
    body = "x" * 4500  # as much in all as by many small ones, which only take the test longer
    for n in range(2000):
        alice.post(room, f"{n} {body}")
        if n % 200 == 0:
            reader.send(f"{room[:20]}-own", str(n))  # pumps the reader; its answer must come
    alice.flush()
    while not reader.client.statistics["suspensions"]:  # until it could hold no more
        reader.send(f"{room[:20]}-own", "x")
    taken = messages(reader, 2000)
    assert [int(m.text.split()[0]) for m in taken] == list(range(2000))


def test_a_reader_that_left_its_rooms_returns_by_itself(
    connect: Connect, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sent with a full queue, so it left the room; no message comes any more that would wake it.

    Taking events must. Not a timer that happens to be due: those shorter than the wait are moved
    out of reach (the next one is the handshake's, after 15 s).
    """
    monkeypatch.setattr(event_queue, "EVENTS_MAX", 100)
    monkeypatch.setattr(answer_watch, "ANSWER_S", 600.0)
    alice, reader = connect("returns-a"), connect("returns-b")
    reader.join(room)
    for n in range(1000):
        alice.post(room, str(n))
    alice.flush()
    while not reader.client.statistics["suspensions"]:
        reader.send(f"{room[:20]}-own", "x")
    reader.send(f"{room[:20]}-own", "x")  # behind LEFT: nothing of the room is under way now
    taken = messages(reader, 1000, 10.0)
    assert [int(m.text) for m in taken] == list(range(1000))


def test_close_waits_for_what_is_unacknowledged(connect: Connect, room: str) -> None:
    """And no request can be made any more; iteration ends."""
    alice = connect("close-a")
    outcomes = [alice.post(room, f"m{n}") for n in range(100)]
    alice.close()
    assert [outcome().seq for outcome in outcomes] == list(range(2, 102))
    assert alice.client.state is State.CLOSED
    with pytest.raises(ClientClosed):
        alice.send(room, "x")
    while (event := alice.next()) is not None:
        last = event
    assert last == StateChanged(State.CLOSED)
    alice.close()


async def test_leaving_reports_a_failed_post_that_nobody_has_looked_at(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """As an exception at the end of a "with", as a warning in close; not if the program has seen
    it.
    """
    with pytest.raises(NotRegistered), BlockingClient(relay.address, name="left-b") as blocking:
        blocking.post("@somebody", "refused")
    with pytest.raises(NotRegistered):
        async with Client(relay.address, name="left-b") as client:
            await client.post("@somebody", "refused")
    with BlockingClient(relay.address, name="left-b") as blocking:
        known = blocking.post("@somebody", "refused")
        with pytest.raises(NotRegistered):
            known.result()
    async with Client(relay.address, name="left-b") as client:
        with pytest.raises(NotRegistered):
            await (await client.post("@somebody", "refused"))
        await client.post("@somebody", "refused")
        with pytest.raises(NotRegistered):
            await client.flush()
    assert caplog.text == ""
    blocking = BlockingClient(relay.address, name="left-b")
    blocking.connect()
    blocking.post("@somebody", "refused")
    blocking.post("@somebody", "refused")
    blocking.close()
    assert "2 posted messages may not be stored; the first: NOT_REGISTERED" in caplog.text
