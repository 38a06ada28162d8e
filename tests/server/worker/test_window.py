"""The window to another worker: no more in flight than keeps its home busy, taking turns."""

from __future__ import annotations

from relay.bus.messages import TAG_STEP
from relay.chat.entries import Extra, Submission
from relay.server.worker.member.sender import OVERHEAD_BYTES, Sender
from relay.server.worker.member.window import (
    ALONE_BYTES,
    LIGHT_MAX,
    QUANTUM,
    QUANTUM_BYTES,
    WINDOW_BYTES,
    Run,
    Window,
)
from relay.server.worker.process.messaging.own_home import LocalPort
from relay.server.worker.wakeup import Wakeup

SIZE = 250
"""The counted size of a send."""
WINDOW = 20 * SIZE


class Home:
    """A window, and what has left it."""

    def __init__(self) -> None:
        self.port = LocalPort(0, 1, Wakeup(lambda _: None))
        self.window = Window(self.port, WINDOW)
        self._runs: list[Run] = []
        """By number of the send."""
        self.answered = 0

    def submit(
        self,
        sender: Sender,
        count: int,
        *,
        log: str = "known",
        size: int = SIZE,
        extra: Extra | None = None,
    ) -> None:
        """Send as many as one run."""
        first = len(self._runs)
        body = bytes(size - OVERHEAD_BYTES)
        sends = [
            Submission(
                log=log, sender="somebody", key_id=b"", producer=bytes(16), counter=number + 1,
                kind=0, content_type="", body=body, extra=extra,
            )
            for number in range(first, first + count)
        ]  # fmt: skip
        run = Run(sender, first * TAG_STEP, [*sends], count * size)
        self._runs += [run] * count
        self.window.submit(run, sends)

    @property
    def runs(self) -> list[list[int]]:
        """Return the numbers of what has left, by run."""
        return [
            [one.tag // TAG_STEP for one in run] for run in self.port.queue if isinstance(run, list)
        ]

    @property
    def sent(self) -> list[int]:
        """Return the numbers of what has left and is not answered, in order."""
        return [number for run in self.runs for number in run][self.answered :]

    def answer(self, count: int) -> list[Sender]:
        """Answer the first ones under way, and let others go; return their senders."""
        whose: list[Sender] = []
        for number in self.sent[:count]:
            whose.append(self._runs[number].sender)
            self._forget(number)
        self.answered += len(whose)
        self.window.release()
        return whose

    def forget(self, sender: Sender) -> None:
        for number, run in enumerate(self._runs):
            if run.sender is sender:
                self._forget(number)

    def _forget(self, number: int) -> None:
        run = self._runs[number]
        index = number - run.first // TAG_STEP
        run.answered(index, index + 1)


def test_a_single_sender_never_waits() -> None:
    home, alone = Home(), Sender()
    home.submit(alone, 1000)
    assert home.sent == list(range(1000))


def test_several_senders_share_the_window() -> None:
    """Each continues as often as the others, in its order, and nobody is forgotten."""
    home = Home()
    floods = [Sender() for _ in range(5)]
    for flood in floods:
        home.submit(flood, 100)
    assert len(home.sent) < 125, "the first one came alone"
    served: list[Sender] = []
    while home.sent:
        before = home.window.in_flight
        served += home.answer(10)
        assert home.window.in_flight <= max(before, WINDOW + QUANTUM * SIZE)
    assert len(served) == 500
    last = {flood: len(served) - served[::-1].index(flood) for flood in floods[1:]}
    assert max(last.values()) - min(last.values()) <= len(floods) * QUANTUM
    assert not home.window.flows
    assert home.window.in_flight == 0


def test_light_senders_do_not_wait_for_those_that_share() -> None:
    """However much is in flight, and however many wait."""
    home = Home()
    for _ in range(50):
        home.submit(Sender(), 100)
    home.window.release()
    before = len(home.sent)
    writer = Sender()
    home.submit(writer, LIGHT_MAX)
    home.window.release()
    assert len(home.sent) == before + LIGHT_MAX
    assert home.sent[-LIGHT_MAX:] == list(range(5000, 5000 + LIGHT_MAX))
    home.submit(writer, 1)
    home.window.release()
    assert len(home.sent) == before + LIGHT_MAX, "more than that waits for answers"


def test_many_light_senders_do_not_fill_the_link() -> None:
    """Nothing overtakes what is in it. Whoever has least is next."""
    home = Home()
    heavy = Sender()
    home.submit(heavy, 1000)
    crowd = [Sender() for _ in range(300)]
    for sender in crowd:
        home.submit(sender, LIGHT_MAX - 4)
    home.window.release()
    most = 2 * WINDOW + 2 * QUANTUM_BYTES
    waiting = set(crowd)
    honest, number = Sender(), 1000 + 300 * (LIGHT_MAX - 4)
    home.answer(1000)  # that one came first and alone
    home.submit(heavy, 1000)
    home.submit(honest, 1)
    while number not in home.sent:
        waiting -= set(home.answer(QUANTUM))
        assert home.window.in_flight <= most
    assert len(waiting) > 250, "it waited for those with more"
    while waiting:
        waiting -= set(home.answer(QUANTUM))
        assert home.window.in_flight <= most
    assert home.window.light_in_flight == 0


def test_heavy_senders_get_half_beside_light_ones_without_end() -> None:
    """However many those are, and however little each has."""
    home = Home()
    home.window.window_bytes = WINDOW_BYTES
    first, heavy = Sender(), Sender()
    home.submit(first, 1200)  # it came alone, and fills the window
    home.submit(heavy, 2000)
    served: list[Sender] = []
    while len(served) < 4000:
        for _ in range(QUANTUM):  # more than are answered
            home.submit(Sender(), LIGHT_MAX)
        served += home.answer(2 * QUANTUM)
    assert served.count(heavy) > 0.4 * (len(served) - 1200 - WINDOW_BYTES // SIZE)


def test_what_is_forgotten_is_not_sent() -> None:
    """Its sender was removed, or its log has another home."""
    home = Home()
    first, gone, last = Sender(), Sender(), Sender()
    home.submit(first, 30)
    home.submit(gone, 30)
    home.submit(last, 30)
    home.forget(gone)
    served: list[Sender] = []
    while home.sent:
        served += home.answer(10)
    assert gone not in served
    assert served.count(first) == served.count(last) == 30
    assert not home.window.flows
    assert home.window.in_flight == 0


def test_waiting_sends_leave_in_runs() -> None:
    """Of one log; a send to another log between them ends a run."""
    home = Home()
    first, other = Sender(), Sender()
    home.submit(first, 100)
    home.submit(other, 5)
    home.submit(other, 2, log="another")
    home.submit(first, 1)  # lies between two of the other's
    home.submit(other, 1)
    home.answer(100)
    assert home.runs == [list(range(100)), [107], [100, 101, 102, 103, 104], [105, 106], [108]]


def test_as_much_of_a_run_is_sent_as_fits() -> None:
    """The rest waits, and is not overtaken by the next run."""
    home = Home()
    alone, other = Sender(), Sender()
    home.submit(alone, 15)
    home.submit(other, 10)
    home.submit(other, QUANTUM)
    assert home.runs == [list(range(15)), list(range(15, 20))]
    home.answer(20)
    end = 20 + QUANTUM
    assert home.runs[2:] == [list(range(20, end))]
    home.answer(QUANTUM)
    assert home.runs[3:] == [list(range(end, end + 5))]


def test_large_sends_leave_in_shorter_runs() -> None:
    """A sender's turn ends at a number of bytes, but each has one send at least."""
    home = Home()
    alone, other = Sender(), Sender()
    home.submit(alone, 20)
    home.submit(other, 3, size=QUANTUM_BYTES)
    home.submit(other, 4, size=QUANTUM_BYTES // 2 + 1)
    home.answer(20)
    assert home.runs[1:] == [[20]]
    home.answer(1)
    assert home.runs[2:] == [[21]]
    home.answer(2)
    assert home.runs[3:] == [[22]]
    home.answer(1)
    assert home.runs[4:] == [[23, 24]]


def test_a_send_with_a_bus_message_of_its_own_counts_more() -> None:
    """Fewer are in flight, and one sender at a time: each costs its home as much as many others."""
    home = Home()
    home.window.window_bytes = 20 * (SIZE + ALONE_BYTES)
    for sender in (Sender(), Sender()):
        home.submit(sender, 100, extra=Extra("somebody"))
    assert home.sent == [*range(100)], "one sends alone, and the other waits"
    home.answer(90)
    assert home.sent[10:] == [*range(100, 100 + QUANTUM)], "more at once than is little there"
    home.answer(100)
    assert home.window.in_flight == len(home.sent) * (SIZE + ALONE_BYTES)


def test_only_unanswered_sends_are_sent_again() -> None:
    """Refused ones in the middle of a run are not, and nothing is counted twice."""
    home, alone = Home(), Sender()
    home.submit(alone, 10)
    run = home._runs[0]
    for number in (3, 4):
        home._forget(number)
    home.window.send_anew(run)
    assert home.runs[1:] == [[0, 1, 2], [5, 6, 7, 8, 9]]
    assert home.window.in_flight == 8 * SIZE
    home.forget(alone)
    assert run.left == home.window.in_flight == 0
    assert not home.window.flows


def test_an_answer_ends_with_the_run() -> None:
    """It may begin in the middle of one, and tell of more than this one has."""
    home, sender = Home(), Sender()
    home.submit(sender, 10)
    run = home._runs[0]
    assert [one.counter for one in run.answered(6, 16)] == [7, 8, 9, 10]
    assert (run.left, run.size, home.window.in_flight) == (6, 6 * SIZE, 6 * SIZE)
    assert [one.counter for one in run.answered(0, 10)] == [1, 2, 3, 4, 5, 6]
    assert (run.left, run.size, home.window.in_flight) == (0, 0, 0)
    assert not home.window.flows
