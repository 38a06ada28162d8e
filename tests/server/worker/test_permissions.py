"""Direct messages that wait for permission from their recipients' homes: who is asked, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from relay.bus.messages import Answered
from relay.chat.accounts.account import Account
from relay.chat.entries import Extra, Submission
from relay.server.worker.home.direct.permissions import (
    ASKED_MAX,
    LEAD_MAX,
    LIGHT_MAX,
    QUANTUM,
    Permissions,
)
from relay.server.worker.home.submissions import Waiting
from relay.wire.codes import ErrorCode
from tests.support.workers import Cluster, TestClient

MANY: Final = 50
SILENT: Final = "-silent"
"""The suffix of handles whose home does not answer."""
REFUSED: Final = int(ErrorCode.NOT_REGISTERED)


class Homes:
    """The requests to recipients' homes, and what is submitted after their answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[Answered], None]]] = []
        """(recipient, what to do with the answer), in the order of the requests."""
        self.submitted: list[tuple[str, int, int]] = []
        """(sender, counter, verdict)."""
        self.heavy: set[str] = set()
        """Senders whose messages are marked as heavy."""
        sender = Account("ann")._replace(chain=cast("Any", _Chain()))
        self.permissions = Permissions(
            self._ask, lambda _: sender, self._submit, lambda log: log.endswith(SILENT)
        )

    def _ask(self, log: str, by: str, content: bytes, then: Callable[[Answered], None]) -> bool:
        if not log.endswith(SILENT):
            self.asked.append((by, then))
        return True

    def _submit(self, run: list[Waiting]) -> None:
        [waiting] = run
        submission = waiting.submission
        assert submission.extra is not None
        if waiting.heavy:
            self.heavy.add(submission.sender)
        self.submitted.append((submission.sender, submission.counter, submission.extra.verdict))

    def send(self, sender: str, *counters: int, end: str = "") -> None:
        """Accept messages of a sender to others, whose handles have the suffix ``end``."""
        for counter in counters:
            submission = Submission(
                log=f"@{sender}", sender=sender, key_id=b"", producer=sender.encode(),
                counter=counter, kind=0, content_type="", body=b"",
                extra=Extra(f"to-{counter}{end}"),
            )  # fmt: skip
            self.permissions.take(Waiting(cast("Any", None), 0, submission))

    def answer(self, code: int = 0, *, count: int = 1) -> None:
        """Answer the oldest open requests."""
        for _ in range(count):
            _, then = self.asked.pop(0)
            then(Answered(0, code, "", b""))

    def counted(self) -> dict[str, int]:
        """Return how many requests are under way, by sender."""
        senders = [by for by, _ in self.asked]
        return {by: senders.count(by) for by in dict.fromkeys(senders)}


class _Chain:
    root = bytes(32)


def test_light_senders_are_asked_about_before_heavy_ones() -> None:
    """However many heavy ones there are; they share the requests in flight."""
    homes = Homes()
    crowd = [f"x{n}" for n in range(100)]
    for name in crowd:
        homes.send(name, *range(1, MANY + 1))
    homes.send("honest", 1)
    homes.permissions.ask_light()
    assert homes.counted() == {"honest": 1}
    homes.permissions.ask_heavy()
    shared = dict.fromkeys(crowd[: ASKED_MAX // QUANTUM], QUANTUM)
    shared[crowd[ASKED_MAX // QUANTUM - 1]] -= 1
    assert homes.counted() == {"honest": 1, **shared}
    homes.send("honest", 2)
    homes.permissions.ask_light()
    assert homes.counted()["honest"] == 2, "though no more of the others may be under way"
    homes.permissions.ask_heavy()
    assert len(homes.asked) == ASKED_MAX + 1
    homes.answer(count=QUANTUM + 2)
    homes.permissions.ask_heavy()
    assert homes.counted().get(crowd[ASKED_MAX // QUANTUM]) == QUANTUM, "the next ones"
    assert homes.heavy == set(crowd[:2]), "the pieces are small, but their senders have many"


def test_nobody_is_asked_about_messages_after_a_refused_one() -> None:
    """The store refuses them for their counters; if they are sent again, a request is made."""
    homes = Homes()
    homes.send("ann", *range(1, 301), 1, 2)
    homes.permissions.ask_light()
    homes.permissions.ask_heavy()
    assert len(homes.asked) == ASKED_MAX
    homes.answer(REFUSED, count=ASKED_MAX)
    while homes.permissions.waiting:
        homes.permissions.ask_heavy()
    assert len(homes.asked) == 2
    homes.answer(count=2)
    assert [counter for _, counter, _ in homes.submitted] == [*range(1, 301), 1, 2]
    verdicts = [verdict for _, _, verdict in homes.submitted]
    doomed = [int(ErrorCode.BUSY)] * (300 - ASKED_MAX)
    assert verdicts == [REFUSED] * ASKED_MAX + doomed + [0, 0]


def test_a_home_that_does_not_answer_stops_only_heavy_senders() -> None:
    """Nothing is reserved for them while no request can be made for any of them."""
    homes = Homes()
    homes.send("ann", *range(1, 101))
    homes.permissions.ask_light()
    homes.permissions.ask_heavy()
    assert not homes.permissions.has_room
    light = [f"x{n}" for n in range(300)]
    for name in light:
        homes.send(name, 1)
        homes.permissions.ask_light()
    assert set(light) <= set(homes.counted())


def test_light_senders_whose_lead_is_used_up_stay_light() -> None:
    """They are next when no heavy sender can be served, and are never parked with those."""
    homes = Homes()
    homes.send("ann", *range(1, 101))
    homes.permissions.ask_light()
    homes.permissions.ask_heavy()
    homes.send("bob", *range(1, 101))
    light = [f"x{n}" for n in range(LEAD_MAX + 50)]
    for name in light:
        homes.send(name, 1)
    homes.permissions.ask_light()
    assert set(homes.counted()) != {"ann", *light}, "heavy senders are next"
    homes.permissions.ask_heavy()
    assert set(homes.counted()) == {"ann", *light}
    homes.answer(count=len(homes.asked))
    homes.permissions.ask_heavy()
    assert homes.heavy == {"ann"}


def test_a_home_that_does_not_answer_stops_nobody_who_writes_to_others() -> None:
    """However many write to its users, and however much; and they go on when it answers."""
    homes = Homes()
    for n in range(100):
        homes.send(f"x{n}", *range(1, MANY + 1), end=SILENT)
    homes.send("ann", *range(1, MANY + 1))
    homes.permissions.ask_light()
    for _ in range(2 * MANY):
        if homes.permissions.has_room:
            homes.permissions.ask_heavy()
        if homes.asked:
            homes.answer()
    assert homes.submitted == [("ann", counter, 0) for counter in range(1, MANY + 1)]
    assert not homes.permissions.has_room


def test_what_was_sent_later_is_asked_about() -> None:
    """The refused message may have been a repeat, after which later ones are valid."""
    homes = Homes()
    homes.send("ann", *range(1, LIGHT_MAX + 1))
    homes.permissions.ask_light()
    homes.answer(REFUSED, count=LIGHT_MAX)
    homes.send("ann", LIGHT_MAX + 1)
    homes.permissions.ask_light()
    assert len(homes.asked) == 1


def test_the_order_of_a_sender_is_kept() -> None:
    """Whichever home answers first; and a forgotten request frees its place when it is answered."""
    homes = Homes()
    homes.send("ann", 1, 2, 3)
    homes.send("bob", 1, 2)
    homes.permissions.ask_light()
    assert homes.counted() == {"bob": 2, "ann": 3}
    for index in (1, 2, 2):  # bob's second, ann's second and third
        homes.asked[index][1](Answered(0, 0, "", b""))
        del homes.asked[index]
    assert not homes.submitted
    homes.permissions.forget(lambda waiting: waiting.submission.sender == "bob")
    homes.answer(count=2)
    assert homes.submitted == [("ann", 1, 0), ("ann", 2, 0), ("ann", 3, 0)]
    assert not homes.permissions.waiting


async def test_a_message_within_one_worker_is_stored_without_requesting_another_turn(
    single: Cluster,
) -> None:
    """The answer arrives in the turn of the request, which nothing else follows."""
    worker = single.workers[0]
    alice = await TestClient.login(worker, "alice")
    await TestClient.login(worker, "bob")
    worker.sweeps = False  # they request turns
    alice.send("@bob", 1)
    await alice.acked("@alice", 1)
