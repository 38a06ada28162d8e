"""Which submissions go into the next commit: quick ones first, and of each producer a few."""

from __future__ import annotations

from relay.chat.accounts.events import CONTENT_TYPE as ACCOUNT
from relay.chat.entries import Kind, Submission
from relay.server.worker.home.submissions import SLOW_PER_GROUP, Submissions, Waiting
from relay.server.worker.process.own_home import OwnHome
from relay.server.worker.wakeup import Wakeup

PORT = OwnHome(0, 1, Wakeup(lambda _: None)).to_member


def _in_use(log: str) -> bool:
    return log == "known"


def _put(
    submissions: Submissions,
    producer: int,
    log: str,
    count: int,
    kind: int = 0,
    content_type: str = "",
) -> None:
    for counter in range(1, count + 1):
        submission = Submission(
            log=log, sender="somebody", key_id=b"", producer=producer.to_bytes(16), counter=counter,
            kind=kind, content_type=content_type, body=b"x",
        )  # fmt: skip
        submissions.put(Waiting(PORT, counter, submission))


def _taken(submissions: Submissions, slow_max: int = SLOW_PER_GROUP) -> list[tuple[int, int]]:
    quick, slow = submissions.take(_in_use, 512, slow_max)
    return [(int.from_bytes(w.submission.producer), w.submission.counter) for w in quick + slow]


def test_messages_of_known_rooms_do_not_wait_for_new_rooms() -> None:
    """However many begin rooms: of them a commit takes a few, and as many as it can of others."""
    submissions = Submissions()
    for producer in range(200):
        _put(submissions, producer, f"new-{producer}", 10)
    _put(submissions, 1000, "known", 50)
    taken = _taken(submissions)
    assert [counter for producer, counter in taken if producer == 1000] == list(range(1, 51))
    assert len(taken) == 50 + SLOW_PER_GROUP
    assert taken[-1][0] != 1000, "slow ones are the last of a group"


def test_slow_ones_have_their_turn_by_turn() -> None:
    """Each as often as the others, in the order of each, and none of it twice."""
    submissions = Submissions()
    for producer in range(20):
        _put(submissions, producer, f"new-{producer}", 3)
    taken: list[tuple[int, int]] = []
    while submissions.lanes:
        group = _taken(submissions)
        assert group
        taken += group
    assert taken[:20] == [(producer, 1) for producer in range(20)]
    assert sorted(taken) == [(producer, n) for producer in range(20) for n in (1, 2, 3)]
    assert submissions.bytes == 0


def test_a_partition_whose_slow_ones_are_not_in_turn_commits_what_is_quick() -> None:
    """And keeps the others."""
    submissions = Submissions()
    _put(submissions, 1, "new", 2)
    _put(submissions, 2, "known", 2)
    assert _taken(submissions, 0) == [(2, 1), (2, 2)]
    _put(submissions, 3, "new-too", 1)
    assert _taken(submissions, 0) == []
    assert _taken(submissions) == [(1, 1), (3, 1)]


def test_a_lane_is_as_slow_as_its_next_message() -> None:
    """What is behind a message to a new room waits with it: the order of a producer is kept."""
    submissions = Submissions()
    _put(submissions, 1, "known", 1)
    _put(submissions, 1, "new", 1)
    _put(submissions, 1, "known", 1)
    _put(submissions, 2, "known", 1)
    assert _taken(submissions, 0) == [(1, 1), (2, 1)]
    assert _taken(submissions, 0) == []
    assert _taken(submissions) == [(1, 1), (1, 1)], "alone it has the whole group"


def test_what_was_slow_is_not_slow_for_that_later() -> None:
    """However it was taken."""
    submissions = Submissions()
    _put(submissions, 1, "new", 1)
    assert _taken(submissions, 0) == []
    assert _taken(submissions) == [(1, 1)]
    _put(submissions, 1, "known", 2)
    _put(submissions, 2, "known", 1)
    assert _taken(submissions, 0) == [(1, 1), (1, 2), (2, 1)]


def test_control_entries_are_slow() -> None:
    """They are committed against a loss of power, and no message waits for that with them."""
    submissions = Submissions()
    for producer in range(20):
        _put(submissions, producer, "known", 1, Kind.SYSTEM)
    _put(submissions, 100, "known", 3)
    _put(submissions, 100, "known", 1, Kind.SYSTEM)
    _put(submissions, 100, "known", 2)
    quick, slow = submissions.take(_in_use, 512, SLOW_PER_GROUP)
    assert [w.submission.kind for w in quick] == [0, 0, 0]
    assert [w.submission.kind for w in slow] == [Kind.SYSTEM] * SLOW_PER_GROUP
    assert submissions.take(_in_use, 512, 0) == ([], [])
    while submissions.lanes:
        quick, slow = submissions.take(_in_use, 512, SLOW_PER_GROUP)
    assert [(w.submission.kind, w.submission.counter) for w in quick] == [(0, 1), (0, 2)]
    assert submissions.bytes == 0


def test_what_concerns_accounts_does_not_wait_for_all_who_begin_and_change_rooms() -> None:
    """An operator who disables somebody, and whoever removes a device, is served at once."""
    submissions = Submissions()
    for producer in range(200):
        _put(submissions, producer, f"new-{producer}", 10)
        _put(submissions, 1000 + producer, "known", 10, Kind.SYSTEM)
    for round_number in range(5):
        _put(submissions, 5000 + round_number, "@bob", 1, Kind.SYSTEM, ACCOUNT)
        assert (5000 + round_number, 1) in _taken(submissions)


def test_accounts_have_half_of_what_is_slow_at_most() -> None:
    """Whoever begins rooms goes on, however many change their accounts."""
    submissions = Submissions()
    for producer in range(50):
        _put(submissions, producer, f"new-{producer}", 1)
        _put(submissions, 1000 + producer, "@bob", 1, Kind.SYSTEM, ACCOUNT)
    taken = _taken(submissions)
    assert len(taken) == SLOW_PER_GROUP
    assert sum(producer < 1000 for producer, _ in taken) == SLOW_PER_GROUP // 2


def test_who_sends_now_and_then_does_not_wait_for_all_who_never_stop() -> None:
    """However many have more to commit than a commit takes: a lane that was empty comes first."""
    submissions = Submissions()
    for producer in range(300):
        _put(submissions, producer, "known", 50)
    for _ in range(60):  # each has had its turn
        assert submissions.take(_in_use, 64, 0)[0]
    _put(submissions, 1000, "known", 1)
    group, _ = submissions.take(_in_use, 64, 0)
    assert int.from_bytes(group[0].submission.producer) == 1000


def test_those_who_never_stop_have_half_of_a_commit_at_least() -> None:
    """However many send now and then."""
    submissions = Submissions()
    _put(submissions, 1, "known", 500)
    for _ in range(2):  # something was taken of it: it is not empty since
        submissions.take(_in_use, 64, 0)
        for producer in range(1000, 1300):
            _put(submissions, producer, "known", 1)
    group, _ = submissions.take(_in_use, 64, 0)
    taken = [int.from_bytes(w.submission.producer) for w in group]
    assert taken.count(1) > 0
    assert taken.index(1) == 32, "the others had the first half"
