"""Which submissions go into the next commit: fast ones first, and a few of each producer."""

from __future__ import annotations

from relay.chat.accounts.events import CONTENT_TYPE as ACCOUNT
from relay.chat.entries import Extra, Kind, Submission
from relay.server.worker.home.submissions import (
    ALONE_UNITS,
    LIGHT_MAX,
    LIGHT_PER_GROUP,
    QUANTUM_MIN,
    READS_FREE,
    SLOW_PER_GROUP,
    Submissions,
    Waiting,
)
from relay.server.worker.member.window import QUANTUM
from relay.server.worker.process.messaging.own_home import OwnHome
from relay.server.worker.wakeup import Wakeup

FIFTY_A_SECOND = 50
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
    *,
    first: int = 1,
    extra: Extra | None = None,
    heavy: bool = False,
) -> None:
    run = []
    for counter in range(first, first + count):
        submission = Submission(
            log=log, sender="somebody", key_id=b"", producer=producer.to_bytes(16), counter=counter,
            kind=kind, content_type=content_type, body=b"x", extra=extra,
        )  # fmt: skip
        run.append(Waiting(PORT, counter, submission, heavy))
    submissions.put(run, count)


def _taken(submissions: Submissions, slow_max: int = SLOW_PER_GROUP) -> list[tuple[int, int]]:
    quick, slow = submissions.take(_in_use, 512, slow_max)
    return [(int.from_bytes(w.submission.producer), w.submission.counter) for w in quick + slow]


def test_messages_to_existing_rooms_do_not_wait_for_new_rooms() -> None:
    """However many rooms are created: a commit takes a few of those, and as many others as
    it can.
    """
    submissions = Submissions()
    for producer in range(200):
        _put(submissions, producer, f"new-{producer}", 10)
    _put(submissions, 1000, "known", 50)
    taken = _taken(submissions)
    assert [counter for producer, counter in taken if producer == 1000] == list(range(1, 51))
    assert len(taken) == 50 + SLOW_PER_GROUP
    assert taken[-1][0] != 1000, "slow ones are the last of a group"


def test_slow_flows_take_turns() -> None:
    """Each as often as the others, in the order of each, and nothing twice."""
    submissions = Submissions()
    for producer in range(20):
        _put(submissions, producer, f"new-{producer}", 3)
    taken: list[tuple[int, int]] = []
    while submissions.count:
        group = _taken(submissions)
        assert group
        taken += group
    assert taken[:20] == [(producer, 1) for producer in range(20)]
    assert sorted(taken) == [(producer, n) for producer in range(20) for n in (1, 2, 3)]
    assert submissions.bytes == 0


def test_a_partition_whose_slow_flows_are_not_next_commits_fast_ones() -> None:
    """And keeps the slow ones."""
    submissions = Submissions()
    _put(submissions, 1, "new", 2)
    _put(submissions, 2, "known", 2)
    assert _taken(submissions, 0) == [(2, 1), (2, 2)]
    _put(submissions, 3, "new-too", 1)
    assert _taken(submissions, 0) == []
    assert _taken(submissions) == [(1, 1), (3, 1)]


def test_a_flow_is_as_slow_as_its_next_message() -> None:
    """Messages after the first one to a new room wait with it: a producer's order is kept."""
    submissions = Submissions()
    _put(submissions, 1, "known", 1)
    _put(submissions, 1, "new", 1)
    _put(submissions, 1, "known", 1)
    _put(submissions, 2, "known", 1)
    assert sorted(_taken(submissions, 0)) == [(1, 1), (2, 1)]
    assert _taken(submissions, 0) == []
    assert _taken(submissions) == [(1, 1), (1, 1)], "alone it has the whole group"


def test_a_slow_flow_does_not_stay_slow() -> None:
    """However it was taken."""
    submissions = Submissions()
    _put(submissions, 1, "new", 1)
    assert _taken(submissions, 0) == []
    assert _taken(submissions) == [(1, 1)]
    _put(submissions, 1, "known", 2)
    _put(submissions, 2, "known", 1)
    assert sorted(_taken(submissions, 0)) == [(1, 1), (1, 2), (2, 1)]


def test_control_entries_are_slow() -> None:
    """They are committed with an fsync, and no message waits for that with them."""
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
    while submissions.count:
        quick, slow = submissions.take(_in_use, 512, SLOW_PER_GROUP)
    assert [(w.submission.kind, w.submission.counter) for w in quick] == [(0, 1), (0, 2)]
    assert submissions.bytes == 0


def test_changes_of_accounts_do_not_wait_for_all_changes_of_rooms() -> None:
    """An operator who disables a user, or a user who removes a device, is served at once."""
    submissions = Submissions()
    for producer in range(200):
        _put(submissions, producer, f"new-{producer}", 10)
        _put(submissions, 1000 + producer, "known", 10, Kind.SYSTEM)
    for round_number in range(5):
        _put(submissions, 5000 + round_number, "@bob", 1, Kind.SYSTEM, ACCOUNT)
        assert (5000 + round_number, 1) in _taken(submissions)


def test_changes_of_accounts_get_at_most_half_of_the_slow_places() -> None:
    """Creating rooms continues, however many change their accounts."""
    submissions = Submissions()
    for producer in range(50):
        _put(submissions, producer, f"new-{producer}", 1)
        _put(submissions, 1000 + producer, "@bob", 1, Kind.SYSTEM, ACCOUNT)
    taken = _taken(submissions)
    assert len(taken) == SLOW_PER_GROUP
    assert sum(producer < 1000 for producer, _ in taken) == SLOW_PER_GROUP // 2


def test_an_occasional_sender_does_not_wait_for_heavy_ones() -> None:
    """However much those have to commit: a flow that was empty comes first."""
    submissions = Submissions()
    for producer in range(300):
        _put(submissions, producer, "known", 50)
    for _ in range(60):  # each has had its turn
        assert submissions.take(_in_use, 64, 0)[0]
    _put(submissions, 1000, "known", 1)
    group, _ = submissions.take(_in_use, 64, 0)
    assert int.from_bytes(group[0].submission.producer) == 1000


def test_heavy_senders_get_at_least_half_of_a_commit() -> None:
    """However many occasional senders there are."""
    submissions = Submissions()
    _put(submissions, 1, "known", 5000)
    taken: list[int] = []
    for _ in range(20):
        for producer in range(1000, 1300):
            if producer.to_bytes(16) not in submissions.flows:
                _put(submissions, producer, "known", 1)
        group, _ = submissions.take(_in_use, 64, 0)
        taken += [int.from_bytes(w.submission.producer) for w in group]
    assert 0.4 < taken.count(1) / len(taken) < 0.6


def test_light_senders_have_a_commit_of_their_own() -> None:
    """Heavy ones wait for it; and it takes only a part of what is committed."""
    submissions = Submissions()
    _put(submissions, 1, "known", 500)
    _put(submissions, 2, "new", 1)
    for producer in range(1000, 1003):
        _put(submissions, producer, "known", 2)
    group = submissions.take_light(_in_use)
    assert sorted({int.from_bytes(w.submission.producer) for w in group}) == [1000, 1001, 1002]
    assert len(group) == 6
    assert submissions.take_light(_in_use) == []
    for producer in range(1000, 1300):
        _put(submissions, producer, "known", 1)
    assert 0 < len(submissions.take_light(_in_use)) <= LIGHT_PER_GROUP
    assert submissions.take_light(_in_use) == [], "the others have their part first"
    heavy_paused = submissions.take_light(_in_use, heavy_paused=True)
    assert 0 < len(heavy_paused) <= LIGHT_PER_GROUP, "while they pause they have none"
    submissions.take(_in_use, 64, SLOW_PER_GROUP)
    while submissions.count:
        submissions.take_light(_in_use)
        submissions.take(_in_use, 64, SLOW_PER_GROUP)
    assert (submissions.count, submissions.bytes) == (0, 0)


def test_what_light_senders_got_during_a_pause_is_no_lead() -> None:
    """Once heavy senders have had a share again, light ones are next."""
    submissions = Submissions()
    _put(submissions, 1, "known", 5_000)
    for _ in range(40):
        for producer in range(1000, 1000 + LIGHT_PER_GROUP):
            _put(submissions, producer, "known", 1)
        assert submissions.take_light(_in_use, heavy_paused=True)
    submissions.take(_in_use, LIGHT_PER_GROUP, SLOW_PER_GROUP)
    _put(submissions, 2000, "known", 1)
    assert len(submissions.take_light(_in_use)) == 1


def test_a_light_sender_that_waited_for_half_a_second_stays_light() -> None:
    """With everything that it wrote meanwhile; one piece of a flood is more than that."""
    assert LIGHT_MAX < QUANTUM
    submissions = Submissions()
    for producer in range(200):
        _put(submissions, producer, "known", QUANTUM)
    _put(submissions, 1000, "known", FIFTY_A_SECOND // 2 - 1)
    group = submissions.take_light(_in_use)
    assert [int.from_bytes(w.submission.producer) for w in group] == [1000] * len(group)
    assert len(group) == FIFTY_A_SECOND // 2 - 1


def test_who_was_forgotten_waits_for_nothing() -> None:
    """Removed submissions are not committed, and later ones are."""
    submissions = Submissions()
    for producer in range(1, 4):
        _put(submissions, producer, "known", 100)
    submissions.take(_in_use, 4, 0)
    submissions.remove(lambda one: one.submission.producer != (3).to_bytes(16))
    _put(submissions, 1, "known", 1)
    taken: list[tuple[int, int]] = []
    while submissions.count:
        taken += _taken(submissions)
    assert [counter for producer, counter in taken if producer == 1] == [1]
    assert {producer for producer, _ in taken} == {1, 3}
    assert (submissions.count, submissions.bytes) == (0, 0)
    _put(submissions, 1, "new", 1)
    for producer in (2, 3):
        _put(submissions, producer, f"new-{producer}", 1)
    assert _taken(submissions, 0) == []
    submissions.remove(lambda one: one.submission.producer == (1).to_bytes(16))
    assert _taken(submissions) == [(2, 1), (3, 1)], "the slow ones still have their turn"


def test_what_was_taken_altogether_is_gone() -> None:
    """They are not answered a second time."""
    submissions = Submissions()
    for producer in range(1, 4):
        _put(submissions, producer, "known", 100)
        _put(submissions, 1000 + producer, "known", 1)
        _put(submissions, 2000 + producer, f"new-{producer}", 1)
    submissions.take(_in_use, 1, 0)
    assert len(submissions.take_all()) == 3 * 102 - 1
    assert (submissions.count, submissions.bytes) == (0, 0)
    for producer in (7, 8):
        _put(submissions, producer, "known", 1)
    assert sorted(_taken(submissions)) == [(7, 1), (8, 1)]
    assert _taken(submissions) == []


def test_what_a_commit_did_not_process_is_next_for_its_producers() -> None:
    """Before later submissions; and fast again, if it was fast before."""
    submissions = Submissions()
    _put(submissions, 1, "known", 4)
    _put(submissions, 2, "known", 1)
    group, _ = submissions.take(_in_use, 512, 0)
    rest = [one for one in group if one.submission.producer == (1).to_bytes(16)][2:]
    _put(submissions, 1, "new", 1, first=5)
    assert _taken(submissions, 0) == []
    submissions.give_back(rest)
    assert (submissions.count, submissions.bytes) == (3, 3)
    assert _taken(submissions, 0) == [(1, 3), (1, 4)]
    assert _taken(submissions) == [(1, 5)]


def test_a_producer_that_causes_many_reads_is_slow_until_all_is_answered() -> None:
    """One submission at a time meanwhile, of any kind; then normally."""
    submissions = Submissions()
    _put(submissions, 1, "known", 20)
    _put(submissions, 2, "known", 20)
    group, _ = submissions.take(_in_use, 8, 0)
    of_first = [one.submission.producer == (1).to_bytes(16) for one in group]
    submissions.charge(group, [READS_FREE if first else 1 for first in of_first])
    assert of_first.count(True) > 1, "a few reads each, and together too many"
    left = 20 - of_first.count(True)
    taken: list[int] = []
    while len(taken) < left:
        quick, slow = submissions.take(_in_use, 4, SLOW_PER_GROUP)
        assert all(one.submission.producer == (2).to_bytes(16) for one in quick)
        taken += [one.submission.counter for one in slow]
        assert len(slow) <= 1
        submissions.charge(quick + slow, [0] * len(quick + slow))
    assert taken == list(range(21 - left, 21))
    _put(submissions, 1, "known", 3)
    _put(submissions, 3, "known", 1)
    assert [number for who, number in _taken(submissions, 0) if who == 1] == [1, 2, 3]


def test_what_heavy_senders_got_alone_is_not_owed_to_light_ones() -> None:
    """Light senders get half from when they come, not everything until they have had as much."""
    submissions = Submissions()
    _put(submissions, 1, "known", 5_000)
    for _ in range(20):
        submissions.take(_in_use, 64, 0)
    for producer in range(1000, 1300):
        _put(submissions, producer, "known", 1)
    taken = 0
    while group := submissions.take_light(_in_use):
        taken += len(group)
    assert taken <= LIGHT_PER_GROUP


def test_what_light_senders_got_alone_is_no_lead() -> None:
    """A share that nobody else wanted could not be reserved for anybody."""
    submissions = Submissions()
    for _ in range(10):
        for producer in range(1000, 1000 + LIGHT_PER_GROUP):
            _put(submissions, producer, "known", 1)
        assert submissions.take_light(_in_use)
    _put(submissions, 1, "known", 5_000)
    _put(submissions, 2000, "known", 1)
    assert len(submissions.take_light(_in_use)) == 1


def test_waiting_producers_are_not_overtaken_by_new_ones() -> None:
    """Starting again and again under another name gains nothing."""
    submissions = Submissions()
    for producer in range(10):
        _put(submissions, producer, "known", 1_000)
    had = 0
    for round_number in range(60):
        for producer in range(16):
            _put(submissions, 1000 + 16 * round_number + producer, "known", 100)
        group, _ = submissions.take(_in_use, 64, 0)
        if round_number > 10:
            had += sum(int.from_bytes(one.submission.producer) < 10 for one in group)
    assert had


def test_a_commit_has_fewer_submissions_that_are_decided_separately() -> None:
    """Of a hundred reactions of each, for example, a few: the commit takes no longer than
    another.
    """
    submissions = Submissions()
    for producer in range(100):
        _put(submissions, producer, "known", 50, extra=Extra(about_seq=1))
    taken = _taken(submissions)
    assert len(taken) == 512 // ALONE_UNITS
    producers = [producer for producer, _ in taken]
    assert {producers.count(producer) for producer in producers} == {QUANTUM_MIN}


def test_small_pieces_of_a_heavy_sender_are_not_light() -> None:
    """Direct messages arrive here as they are decided, a few at a time."""
    submissions = Submissions()
    for producer in range(100):
        _put(submissions, producer, "known", 4, heavy=True)
    _put(submissions, 1000, "known", 1)
    group = submissions.take_light(_in_use, heavy_paused=True)
    assert [int.from_bytes(w.submission.producer) for w in group] == [1000]


def test_one_that_waits_alone_is_like_all_others() -> None:
    """It is in no flow as long as nothing is to be chosen."""

    def alone() -> Submissions:
        submissions = Submissions()
        _put(submissions, 1, "known", 1)
        assert submissions.lone is not None
        assert (submissions.senders, submissions.count, submissions.bytes) == (1, 1, 1)
        return submissions

    lone = alone()
    lone.clear()
    assert (lone.lone, lone.count, lone.bytes, lone.senders) == (None, 0, 0, 0)
    assert alone().units() == 1
    assert _taken(alone()) == [(1, 1)]
    assert len(alone().take_light(_in_use)) == 1
    assert len(alone().take_all()) == 1
    removing = alone()
    assert len(removing.remove(lambda _: True)) == 1
    assert (removing.lone, removing.count, removing.bytes) == (None, 0, 0)
    assert len(alone().remove(lambda _: False)) == 0
    followed = alone()
    _put(followed, 1, "known", 2, first=2)
    assert followed.lone is None
    assert _taken(followed) == [(1, 1), (1, 2), (1, 3)]


def test_what_is_given_back_comes_before_one_that_waits_alone() -> None:
    """A later submission of the same producer may have come during the commit."""
    submissions = Submissions()
    _put(submissions, 1, "known", 3)
    group, _ = submissions.take(_in_use, 512, 0)
    _put(submissions, 1, "known", 1, first=4)
    assert submissions.lone is not None
    submissions.give_back(group[1:])
    assert submissions.lone is None
    assert _taken(submissions) == [(1, 2), (1, 3), (1, 4)]


def test_the_producer_of_one_that_waits_alone_may_be_slow() -> None:
    """It was found out in a commit during which this one came."""
    submissions = Submissions()
    _put(submissions, 1, "known", 2)
    group, _ = submissions.take(_in_use, 512, 0)
    _put(submissions, 1, "known", 1, first=3)
    submissions.charge(group, [READS_FREE + 1, 0])
    assert _taken(submissions, 0) == [], "it waits for its turn among the slow ones"
    assert _taken(submissions) == [(1, 3)]
