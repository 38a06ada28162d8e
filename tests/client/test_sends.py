"""relay.client.sends."""

from __future__ import annotations

import random

import pytest

from relay import limits
from relay.client.errors import ClientClosed
from relay.client.events import Stored
from relay.client.pending_sends import Offer
from relay.client.refusals import (
    BadRequest,
    Busy,
    IdConflict,
    NoSuchRoom,
    NotAllowed,
    Unavailable,
    UnknownOutcome,
)
from relay.client.sends import Sends
from relay.wire.codes import ErrorCode
from relay.wire.envelopes import Ack, Refused
from tests.client.model import EPOCH, ModelLog, sends_in


class Window:
    """A window with a model of the server; the clock moves only when told to."""

    def __init__(
        self,
        counters: dict[str, int] | None = None,
        window: int = 256,
        retry_timeout_s: float | None = None,
    ) -> None:
        self.sends = Sends(
            counters or {},
            inbox="@me",
            window=window,
            retry_timeout_s=retry_timeout_s,
            retry_spread=lambda: 0.0,
        )
        self.log = ModelLog("room")
        self.now = 100.0
        self.results: dict[object, object] = {}
        self.sends.online(limits.SENDS_UNACKNOWLEDGED_MAX)

    def add(self, *bodies: str, identity: bytes = b"") -> None:
        """Queue messages; each is its own token."""
        for body in bodies:
            assert self.sends.has_space(len(body))
            offer = Offer("room", "text/plain", body.encode(), identity=identity)
            self.sends.add(offer, body)

    def transmitted(self) -> list[int]:
        """Transmit, and return the counters that left."""
        self.out = sends_in(self.sends.transmit())
        return [send.counter for send in self.out]

    def answer(self, *answers: Ack | Refused) -> None:
        """Process answers."""
        for answer in answers:
            if isinstance(answer, Ack):
                self.sends.acknowledged(answer, self.now)
            else:
                self.sends.refused(answer, self.now)
        self.results |= dict(self.sends.outcomes())

    def settle(self) -> None:
        """Let the model answer everything until nothing is pending."""
        for _ in range(1000):
            self.transmitted()
            self.answer(*[self.log.offer(send) for send in self.out])
            deadline = self.sends.next_deadline()
            if deadline is not None:
                self.now = max(self.now, deadline)
                self.sends.handle_deadline(self.now)
            if not self.sends.count:
                return
        raise AssertionError("no end")

    def refuse(self, counter: int, code: ErrorCode, arg: int = 0) -> None:
        """Answer one send with a refusal."""
        self.answer(self.log.refuse(counter, code, arg))


def test_counters_begin_at_one_for_each_log() -> None:
    """And go up by one."""
    window = Window()
    window.add("a", "b")
    window.sends.add(Offer("other", "", b"c"), "c")
    assert [(s.log, s.counter) for s in sends_in(window.sends.transmit())] == [
        ("room", 1),
        ("room", 2),
        ("other", 1),
    ]
    assert window.sends.counters() == {"room": 1, "other": 1}


def test_acknowledged() -> None:
    """The outcome has the place; an unexpected answer changes nothing."""
    window = Window()
    window.add("a")
    window.settle()
    assert window.results == {"a": Stored(EPOCH, 1)}
    window.answer(Ack("room", 1, EPOCH, 1), Ack("nowhere", 5, EPOCH, 1))
    assert (window.sends.count, window.sends.bytes, window.sends.in_flight) == (0, 0, 0)
    assert window.sends.counters() == {"room": 2}


def test_the_window_is_bounded_by_number_and_bytes() -> None:
    """One message always fits, however large."""
    window = Window(window=3)
    window.add("a", "b", "c")
    assert not window.sends.has_space(1)
    window.settle()
    assert window.sends.has_space(limits.BODY_BYTES_MAX)
    wide = Window(window=5000)
    count = 0
    while wide.sends.has_space(30_000):
        wide.sends.add(Offer("room", "", bytes(30_000)), count)
        count += 1
    assert count == limits.SENDS_UNACKNOWLEDGED_BYTES_MAX // 30_128


def test_the_servers_own_window_is_kept() -> None:
    """WELCOME.sends_max bounds what is under way, not what is queued."""
    window = Window()
    window.sends.offline()
    window.add("a", "b", "c")
    window.sends.online(2)
    assert window.transmitted() == [1, 2]
    assert window.transmitted() == []
    window.answer(Ack("room", 1, EPOCH, 1))
    assert window.transmitted() == [3]


def test_resent_after_a_lost_connection_in_order() -> None:
    """Everything unacknowledged, with the same counters; the log has each once."""
    window = Window()
    window.add("a", "b", "c")
    window.transmitted()
    window.log.offer(window.out[0])  # stored, but the answer is lost
    window.sends.offline()
    window.add("d")
    window.sends.online(1024)
    assert window.transmitted() == [1, 2, 3, 4]
    window.answer(*[window.log.offer(send) for send in window.out])
    assert window.log.stored == [b"a", b"b", b"c", b"d"]
    assert [window.results[body] for body in "abcd"] == [Stored(EPOCH, n) for n in (1, 2, 3, 4)]
    assert window.sends.resent == 3


def test_nobody_waits_for_weeks() -> None:
    """As long as docs/protocol.md lets a server ask for, and no longer."""
    window = Window()
    window.add("a")
    window.transmitted()
    window.refuse(1, ErrorCode.BUSY, 2**32 - 1)
    assert window.sends.next_deadline() == pytest.approx(window.now + limits.RETRY_MS_MAX / 1000)


def test_busy_waits_for_its_time_and_for_the_others() -> None:
    """No send of the log leaves before all those under way are answered and the time is over."""
    window = Window()
    window.add("a", "b", "c")
    window.transmitted()
    window.refuse(1, ErrorCode.BUSY, 700)
    window.refuse(2, ErrorCode.UNKNOWN_OUTCOME)
    window.add("d")
    assert window.transmitted() == []
    assert window.sends.next_deadline() is None
    window.refuse(3, ErrorCode.UNKNOWN_OUTCOME)
    assert window.sends.next_deadline() == pytest.approx(window.now + 0.7)
    window.sends.handle_deadline(window.now + 0.5)
    assert window.transmitted() == []
    window.now += 0.71
    window.sends.handle_deadline(window.now)
    assert window.transmitted() == [1, 2, 3, 4]
    window.answer(*[window.log.offer(send) for send in window.out])
    assert window.log.stored == [b"a", b"b", b"c", b"d"]
    assert window.results["a"] == Stored(EPOCH, 1)


def test_one_log_does_not_hold_up_another() -> None:
    """While it waits."""
    window = Window()
    window.add("a")
    window.transmitted()
    window.refuse(1, ErrorCode.UNAVAILABLE, 500)
    window.sends.add(Offer("other", "", b"x"), "x")
    assert window.transmitted() == [1]
    assert window.out[0].log == "other"


def test_expected_goes_back_at_once() -> None:
    """The home changed while sends were under way."""
    window = Window()
    window.add("a", "b")
    window.transmitted()
    first, second = window.out
    window.answer(window.log.refuse(2, ErrorCode.EXPECTED, 1), window.log.offer(first))
    assert window.transmitted() == [2]
    window.answer(window.log.offer(second))
    assert window.log.stored == [b"a", b"b"]


def test_no_hot_loop_without_progress() -> None:
    """A server that answers EXPECTED for ever is retried more and more slowly."""
    window = Window()
    window.add("a")
    pauses = []
    for _ in range(8):
        assert window.transmitted() == [1]
        window.refuse(1, ErrorCode.EXPECTED, 1)
        deadline = window.sends.next_deadline()
        pauses.append(0.0 if deadline is None else deadline - window.now)
        window.now += pauses[-1]
        window.sends.handle_deadline(window.now)
    assert pauses[0] == 0.0
    assert pauses[1:] == sorted(pauses[1:])
    assert pauses[-1] >= 1.0


def test_a_server_that_was_restored_to_an_earlier_state() -> None:
    """EXPECTED below the first unacknowledged: numbering continues at the server's position."""
    window = Window()
    window.add("a", "b", "c")
    window.settle()
    window.log.stored.pop()
    window.log.last = 2
    window.add("d", "e")
    window.settle()
    assert window.log.stored == [b"a", b"b", b"d", b"e"]
    assert window.sends.counters() == {"room": 5}


def test_a_final_refusal_has_not_used_its_counter() -> None:
    """The sends after it move up, and are stored in order."""
    window = Window()
    window.add("a", "bad", "c", "d")
    window.transmitted()
    a, bad, c, d = window.out
    window.answer(window.log.offer(a))
    window.answer(window.log.refuse(bad.counter, ErrorCode.BAD_REQUEST))
    assert isinstance(window.results["bad"], BadRequest)
    window.answer(window.log.offer(c), window.log.offer(d))
    for counter, body in ((2, b"c"), (3, b"d")):  # one at a time, until one is stored
        assert window.transmitted() == [counter]
        assert [send.body for send in window.out] == [body]
        window.answer(*[window.log.offer(send) for send in window.out])
    assert window.log.stored == [b"a", b"c", b"d"]
    window.add("e")
    assert window.transmitted() == [4]


def test_a_whole_window_refused() -> None:
    """A log with an illegal name: each send gets its own error, and the counter stays at 1."""
    window = Window()
    bodies = [f"m{n}" for n in range(100)]
    window.add(*bodies)
    window.transmitted()
    for send in window.out:
        window.refuse(send.counter, ErrorCode.BAD_REQUEST)
    assert all(isinstance(window.results[body], BadRequest) for body in bodies)
    assert window.sends.counters() == {"room": 1}
    window.add("next")
    assert window.transmitted() == [1]


@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
def test_a_window_for_a_room_that_is_gone(known: bool) -> None:
    """One refusal is enough for all that is meant for it. With one each, all that follow would be
    sent again each time: 200 messages took the server minutes.
    """
    window = Window()
    window.log.gone = b"deleted"
    if known:
        window.add("before")
        window.settle()
    gone = [f"m{n}" for n in range(100)]
    window.add(*gone[:50], identity=b"deleted")
    window.add("one", identity=b"next")
    window.add(*gone[50:], identity=b"deleted")
    window.add("two")
    first = window.transmitted()[0]
    answers = [window.log.offer(send) for send in window.out]
    window.answer(answers[0])
    assert {type(window.results[body]) for body in gone} == {NoSuchRoom}
    assert len({id(window.results[body]) for body in gone}) == len(gone)
    window.answer(*answers[1:])
    window.settle()
    assert window.log.stored[known:] == [b"one", b"two"]
    assert window.sends.counters() == {"room": first + 2}
    assert (window.sends.bytes, window.sends.in_flight) == (0, 0)
    assert window.sends.resent == 2


@pytest.mark.parametrize("lost", [False, True], ids=["", "the connection is lost"])
def test_late_answers_to_what_was_refused_with_another(lost: bool) -> None:
    """Whatever they are: each message has one outcome."""
    window = Window()
    window.add("a", "b", "c", identity=b"deleted")
    window.transmitted()
    window.refuse(1, ErrorCode.NO_SUCH_ROOM)
    window.add("d")
    if lost:
        window.sends.offline()
        window.sends.online(limits.SENDS_UNACKNOWLEDGED_MAX)
    window.answer(Ack("room", 2, EPOCH, 7))
    window.refuse(3, ErrorCode.BAD_REQUEST)
    assert {type(window.results[body]) for body in "abc"} == {NoSuchRoom}
    window.settle()
    assert window.results["d"] == Stored(EPOCH, 1)
    assert window.sends.counters() == {"room": 2}


def test_a_refusal_without_an_identity_is_of_one_message() -> None:
    """Somebody may create a room of the name before the next one arrives."""
    window = Window()
    window.add("a", "b")
    window.transmitted()
    window.refuse(1, ErrorCode.NO_SUCH_ROOM)
    assert set(window.results) == {"a"}
    window.refuse(2, ErrorCode.EXPECTED, 1)
    window.settle()
    assert window.log.stored == [b"b"]


@pytest.mark.parametrize("lost", [False, True], ids=["", "the connection is lost"])
def test_who_may_no_longer_write(lost: bool) -> None:
    """Each message is refused in its turn, and those behind it are not sent each time."""
    window = Window()
    window.add("before")
    window.settle()
    bodies = [f"m{n}" for n in range(100)]
    window.log.forbidden = {body.encode() for body in bodies}
    window.add(*bodies, "x", "y", "z")
    if lost:
        window.transmitted()
        window.refuse(2, ErrorCode.NOT_ALLOWED)
        window.sends.offline()
        window.sends.online(limits.SENDS_UNACKNOWLEDGED_MAX)
    window.settle()
    assert {type(window.results[body]) for body in bodies} == {NotAllowed}
    assert window.log.stored == [b"before", b"x", b"y", b"z"]
    assert window.sends.resent <= 2 * len(bodies)


def test_one_at_a_time_goes_on_after_each_outcome() -> None:
    """Also of one that may be stored, so that its counter is not free."""
    window = Window()
    window.add("a", "b", "c", "d")
    window.transmitted()
    window.refuse(1, ErrorCode.BAD_REQUEST)
    window.answer(*[window.log.offer(send) for send in window.out[1:]])
    assert window.transmitted() == [1]
    window.add("e")
    assert window.transmitted() == []
    window.refuse(1, ErrorCode.ID_CONFLICT, 1)
    assert window.transmitted() == [2]
    window.refuse(2, ErrorCode.EXPECTED, 1)
    window.settle()
    assert window.log.stored == [b"c", b"d", b"e"]


def test_id_conflict_uses_the_counter() -> None:
    """A program restored too low a counter: the error has the entry; the next send goes on."""
    window = Window({"room": 1})
    window.log.stored, window.log.ids, window.log.last = [b"old"], {1: 1}, 1
    window.add("new", "more")
    window.settle()
    conflict = window.results["new"]
    assert isinstance(conflict, IdConflict)
    assert conflict.seq == 1
    assert window.results["more"] == Stored(EPOCH, 2)
    assert window.log.stored == [b"old", b"more"]


def test_a_restored_counter_is_used_for_the_first_send() -> None:
    """Exactly once over a restart of the program: a stored message is answered, not stored
    again.
    """
    window = Window({"room": 2, "quiet": 9})
    window.log.stored, window.log.ids, window.log.last = [b"a", b"b"], {1: 1, 2: 2}, 2
    window.add("b", "c")
    window.settle()
    assert window.log.stored == [b"a", b"b", b"c"]
    assert window.results == {"b": Stored(EPOCH, 2), "c": Stored(EPOCH, 3)}
    assert window.sends.counters() == {"room": 4, "quiet": 9}


def test_a_restored_counter_that_the_server_has_forgotten() -> None:
    """Only the program can know: unknown-outcome for what it sent; then numbering begins anew."""
    window = Window({"room": 7})
    window.add("old", "older")
    window.settle()
    assert all(isinstance(window.results[body], UnknownOutcome) for body in ("old", "older"))
    assert window.log.stored == []
    window.add("new")
    window.settle()
    assert window.results["new"] == Stored(EPOCH, 1)


def test_a_client_that_was_silent_for_a_month() -> None:
    """What is sent for the first time cannot have been stored: it is, under a new numbering."""
    window = Window()
    window.add("a", "b")
    window.settle()
    window.log.forget()
    window.add("c", "d")
    window.settle()
    assert window.log.stored == [b"a", b"b", b"c", b"d"]


def test_unknown_after_a_lost_connection_is_unknown() -> None:
    """It was sent before: it may have been stored and forgotten."""
    window = Window()
    window.add("a")
    window.settle()
    window.add("b")
    window.transmitted()
    window.sends.offline()
    window.log.forget()
    window.sends.online(1024)
    window.settle()
    assert isinstance(window.results["b"], UnknownOutcome)
    assert window.log.stored == [b"a"]


def test_the_retry_timeout_ends_as_busy() -> None:
    """Only for what is certainly not stored; the sends after it move up."""
    window = Window(retry_timeout_s=1.0)
    window.add("a", "b")
    for _ in range(3):
        for counter in window.transmitted():
            window.refuse(counter, ErrorCode.BUSY, 600)
        window.now += 0.61
        window.sends.handle_deadline(window.now)
    busy = window.results["a"]
    assert isinstance(busy, Busy)
    assert busy.retry_after_s == 0.6
    window.add("c")
    window.settle()
    assert window.log.stored == [b"c"]


@pytest.mark.parametrize("has_it", [True, False])
@pytest.mark.parametrize("code", [ErrorCode.UNAVAILABLE, ErrorCode.BUSY])
def test_what_an_earlier_connection_had_may_be_stored(code: ErrorCode, has_it: bool) -> None:
    """BUSY does not mean that it was not stored there. Without a timeout it is retried for ever."""
    for limit_s in (None, 1.0):
        window = Window(retry_timeout_s=limit_s)
        window.add("a", "b")
        window.transmitted()
        if has_it:
            window.log.offer(window.out[0])
        window.sends.offline()
        window.sends.online(1024)
        for _ in range(3):
            for counter in window.transmitted():
                window.refuse(counter, code, 600)
            window.now += 0.61
            window.sends.handle_deadline(window.now)
        if limit_s is None:
            assert window.results == {}
        else:
            assert {type(found) for found in window.results.values()} == {Unavailable}
            window.results.clear()
        window.add("c")
        window.settle()
        stored = [b"a"] if has_it else []
        assert window.log.stored == (stored if limit_s else [b"a", b"b"]) + [b"c"]
        assert {type(found) for found in window.results.values()} == {Stored}


@pytest.mark.parametrize("has_it", [True, False])
@pytest.mark.parametrize("last", [ErrorCode.UNAVAILABLE, ErrorCode.BUSY])
def test_what_a_home_was_away_for_may_be_stored(last: ErrorCode, has_it: bool) -> None:
    """So its outcome is unknown, whatever came last; and its counter is not used again."""
    window = Window(retry_timeout_s=1.0)
    window.add("a")
    window.transmitted()
    if has_it:
        window.log.offer(window.out[0])
    window.refuse(1, ErrorCode.UNAVAILABLE, 600)
    window.now += 1.1
    window.sends.handle_deadline(window.now)
    window.transmitted()
    window.refuse(1, last, 600)
    assert isinstance(window.results["a"], Unavailable)
    window.add("b", "c")
    window.settle()
    assert window.log.stored == ([b"a"] if has_it else []) + [b"b", b"c"]
    assert all(isinstance(window.results[body], Stored) for body in "bc")


def test_the_end_of_the_client_is_an_outcome() -> None:
    """For every pending send."""
    window = Window()
    window.add("a", "b")
    window.transmitted()
    window.sends.fail_all(ClientClosed("closed"))
    window.answer()
    assert [type(window.results[body]) for body in "ab"] == [ClientClosed, ClientClosed]
    assert (window.sends.count, window.sends.bytes) == (0, 0)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_each_message_is_stored_once_in_order(seed: int) -> None:
    """Random refusals, lost answers, lost connections, forwarders that reorder."""
    dice = random.Random(seed)
    window = Window(window=32)
    window.log.gone = b"deleted"
    sent = [f"m{n}" for n in range(300)]
    gone = {body for body in sent if dice.random() < (0.3 if seed % 2 else 0.0)}
    barred = {body for body in sent if dice.random() < (0.2 if seed % 3 else 0.0)} - gone
    window.log.forbidden = {body.encode() for body in barred}
    to_send = list(reversed(sent))
    for _ in range(20_000):
        while to_send and window.sends.has_space(5) and dice.random() < 0.8:
            body = to_send.pop()
            window.add(body, identity=b"deleted" if body in gone else b"")
        window.transmitted()
        answers: list[Ack | Refused] = []
        for send in window.out:
            chance = dice.random()
            if chance < 0.05:
                answers.append(window.log.refuse(send.counter, ErrorCode.BUSY, 50))
            elif chance < 0.1:
                answers.append(window.log.refuse(send.counter, ErrorCode.UNAVAILABLE, 20))
            else:
                answers.append(window.log.offer(send))
        if dice.random() < 0.3:
            dice.shuffle(answers)
        lost = dice.random() < 0.1
        if lost:
            del answers[dice.randrange(len(answers) + 1) :]
        window.answer(*answers)
        if lost:
            window.sends.offline()
            window.sends.online(dice.choice((4, 1024)))
        window.now += dice.choice((0.0, 0.01, 0.1, 1.0))
        window.sends.handle_deadline(window.now)
        if not to_send and not window.sends.count:
            break
    assert {body for body, one in window.results.items() if isinstance(one, NoSuchRoom)} == gone
    assert {body for body, one in window.results.items() if isinstance(one, NotAllowed)} == barred
    left = [body for body in sent if body not in gone | barred]
    assert window.log.stored == [body.encode() for body in left]
    places = [Stored(EPOCH, n) for n in range(1, len(left) + 1)]
    assert [window.results[body] for body in left] == places
    assert window.sends.counters() == {"room": len(left) + 1}
    assert (window.sends.bytes, window.sends.in_flight) == (0, 0)
