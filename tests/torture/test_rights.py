"""Rooms under torture: bans and invitations race with messages, readers and kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.chat.entries import Entry, Kind
from relay.chat.rooms import events
from relay.wire.envelopes import EntryMessage
from tests.torture import moderated, rights
from tests.torture.rights import Finding

ROOM = "lobby"


# --- the checker itself --------------------------------------------------------------------------
def log_of(*entries: tuple[str, events.Event | None]) -> list[EntryMessage]:
    """Return a log of events and (None) messages."""
    found = []
    for seq, (sender, event) in enumerate(entries, 1):
        kind = Kind.MESSAGE if event is None else Kind.SYSTEM
        body = b"hi" if event is None else events.pack(event)
        content_type = "" if event is None else events.CONTENT_TYPE
        found.append(
            Entry(
                ROOM, b"epoch..8", seq, seq - 1, 1, sender, b"", b"p" * 16, seq, int(kind),
                content_type, body,
            )
        )  # fmt: skip
    return found


ALICE, BOB = b"a" * 32, b"b" * 32
PRIVATE = ("alice", events.Created(events.Kind.PRIVATE, True, ALICE))
INVITED = ("alice", events.Invited("bob", BOB))
BANNED = ("alice", events.Banned("bob", BOB, 0, ""))
MESSAGE = ("alice", None)
STRANGER = "eve"
"""Never invited."""


def about(log: list[EntryMessage], kind: Kind, who: str, seq: int) -> list[EntryMessage]:
    """Return the log with another entry, about an earlier one."""
    last = log_of(*[(who, None)] * (len(log) + 1))[-1]
    return [*log, last._replace(kind=int(kind), about_seq=seq, about_epoch=last.epoch)]


def test_what_the_checker_finds() -> None:
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), BANNED, ("bob", None), MESSAGE)
    assert list(rights.check(log, {"alice": range(1, 8)})) == [Finding("wrote", "bob", 6)]
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), BANNED, MESSAGE)
    assert list(rights.check(log, {"bob": range(1, 6)})) == []
    assert list(rights.check(log, {"bob": range(1, 7)})) == [Finding("read", "bob", 6)]
    assert list(rights.check(log, {"eve": [1, 6]})) == [Finding("read", "eve", 6)]
    again = log_of(PRIVATE, INVITED, BANNED, MESSAGE, ("alice", events.Freed("bob")), INVITED)
    assert list(rights.check(again, {"bob": range(1, 7)})) == []


@pytest.mark.parametrize("kind", [Kind.EDIT, Kind.REACTION, Kind.ERASED])
def test_all_that_is_written_needs_the_right(kind: Kind) -> None:
    muted = ("alice", events.Muted("bob", BOB, 0, ""))
    log = log_of(PRIVATE, INVITED, ("bob", None))
    assert list(rights.check(about(log, kind, "bob", 3), {})) == []
    log = log_of(PRIVATE, INVITED, ("bob", None), muted)
    assert list(rights.check(about(log, kind, "bob", 3), {})) == [Finding("wrote", "bob", 5)]


def test_who_may_erase_is_judged_at_each_place() -> None:
    """Of others while one is a moderator, and of those below; one's own while one may write."""
    moderator = ("alice", events.RoleSet("bob", BOB, events.Role.MODERATOR))
    member = ("alice", events.RoleSet("bob", BOB, events.Role.MEMBER))
    carol = ("alice", events.Invited("carol", b"c" * 32))
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), carol, ("carol", None), moderator)
    for who, target, found in (
        ("bob", 2, [Finding("erased", "bob", 8)]),  # alice is above him
        ("bob", 4, []),
        ("bob", 6, []),
        ("alice", 4, []),
        ("carol", 6, []),
        ("carol", 4, [Finding("erased", "carol", 8)]),
    ):
        assert list(rights.check(about(log, Kind.REDACTION, who, target), {})) == found
    log += log_of(*[MESSAGE] * 7, member)[7:]
    of_bob = rights.check(about(log, Kind.REDACTION, "bob", 6), {})
    assert list(of_bob) == [Finding("erased", "bob", 9)]


@pytest.mark.parametrize(
    "event",
    [
        events.TopicSet("tea"), events.Invited("carol", b"c" * 32), events.Kicked("carol", ""),
        events.Closed(True), events.Deleted(""), events.RoleSet("bob", BOB, events.Role.OWNER),
    ],
)  # fmt: skip
def test_a_change_needs_its_right(event: events.Event) -> None:
    log = log_of(PRIVATE, INVITED, ("bob", event))
    assert list(rights.check(log, {})) == [Finding("changed", "bob", 3)]
    assert list(rights.check(log_of(PRIVATE, INVITED, ("alice", event)), {})) == []


def test_power_ends_at_ones_own_rank() -> None:
    moderator = events.RoleSet("bob", BOB, events.Role.MODERATOR)
    log = log_of(PRIVATE, ("alice", moderator), ("bob", events.Kicked("alice", "")))
    assert list(rights.check(log, {})) == [Finding("changed", "bob", 3)]


def test_nothing_follows_a_deletion_but_a_creation() -> None:
    deleted = ("alice", events.Deleted(""))
    log = log_of(PRIVATE, deleted, MESSAGE, ("alice", events.TopicSet("tea")))
    faults = [(one.fault, one.seq) for one in rights.check(log, {})]
    assert faults == [("wrote", 3), ("changed", 4)]
    again = log_of(PRIVATE, MESSAGE, deleted, PRIVATE, MESSAGE)
    assert list(rights.check(again, {})) == []
    for removed in (1, 2, 3):
        left = rights.with_holes(again[removed:])
        assert list(rights.check(left, {})) == []
    wrong = rights.with_holes([*again[2:], log_of(*[("bob", None)] * 6)[5]])
    assert list(rights.check(wrong, {})) == [Finding("wrote", "bob", 6)]
    twice = log_of(PRIVATE, PRIVATE)
    assert list(rights.check(twice, {})) == [Finding("changed", "alice", 2)]


def test_what_comes_live_is_judged_at_its_place() -> None:
    """A reader who is let in again later may read it then, not at once."""
    log = log_of(PRIVATE, INVITED, BANNED, MESSAGE, ("alice", events.Freed("bob")), INVITED)
    assert list(rights.check(log, {"bob": rights.Seen([3, 4], live=[3])})) == []
    found = list(rights.check(log, {"bob": rights.Seen([3, 4], live=[3, 4])}))
    assert found == [Finding("read", "bob", 4)]


def test_an_answer_is_of_one_room() -> None:
    log = log_of(PRIVATE, MESSAGE, ("alice", events.Deleted("")), PRIVATE, MESSAGE)
    apart = rights.Seen(range(1, 6), answers=[[1, 2, 3], [4, 5]])
    assert list(rights.check(log, {"alice": apart})) == []
    together = rights.Seen(range(1, 6), answers=[[3, 4, 5]])
    assert list(rights.check(log, {"alice": together})) == [Finding("former", "alice", 3)]


def test_what_strays_to_the_next_room_of_a_name() -> None:
    """Each text is for the room that was there where the log ended when its sender joined."""
    log = log_of(PRIVATE, MESSAGE, ("alice", events.Deleted("")), PRIVATE, MESSAGE, MESSAGE)
    for head, seq, strayed in ((1, 2, False), (2, 5, True), (3, 6, True), (4, 5, False)):
        marked = list(log)
        marked[seq - 1] = log[seq - 1]._replace(body=f"hi {rights.meaning(head)}".encode())
        found = [Finding("strayed", "alice", seq)] if strayed else []
        assert list(rights.check(marked, {})) == found
    for removed in (1, 3):
        assert list(rights.check(rights.with_holes(marked[removed:]), {})) == []
        stray = marked[4]._replace(body=rights.meaning(2).encode())
        left = rights.with_holes([*marked[removed:4], stray, marked[5]])
        assert list(rights.check(left, {})) == [Finding("strayed", "alice", 5)]
    apart = rights.Seen(range(1, 7), stays=[(0, [1, 2, 3]), (4, [4, 5, 6])])
    assert list(rights.check(log, {"alice": apart})) == []
    on = rights.Seen(range(1, 7), stays=[(2, [2, 3, 4, 5])])
    assert list(rights.check(log, {"alice": on})) == [Finding("strayed", "alice", 4)]


# --- a whole relay -------------------------------------------------------------------------------
async def test_bans_invitations_and_kills(tmp_path: Path) -> None:
    """No message after a ban, no entry for a user who may not read."""
    outcome = await moderated.run(tmp_path, kills_every=3)
    assert outcome.findings == []
    assert outcome.kills
    assert outcome.links > moderated.ROUNDS
    assert outcome.resumed, "a client that reconnects resumes by ticket"
    done = {Kind.MESSAGE, Kind.EDIT, Kind.REACTION, Kind.REDACTION, Kind.ERASED, Kind.SYSTEM}
    assert set(outcome.kinds) == done


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("rights-of-a-moment-ago", "wrote"),
        ("nobody-is-put-out", "read"),
        ("rights-for-messages-alone", "wrote"),
        ("erases-as-before", "erased"),
        ("changes-as-before", "changed"),
        ("shows-former-rooms", "former"),
        ("takes-any-room-of-the-name", "strayed"),
        ("tickets-twice", "ticket"),
        ("hides-devices", "chain"),
    ],
)
async def test_broken_relays_are_caught(tmp_path: Path, variant: str, found: str) -> None:
    """Each bug that a reasonable implementation might have."""
    # Whether a turn shows it depends on which requests are under way at a change of rights.
    outcome = await moderated.run(tmp_path, variant, turns=6 * moderated.ROUNDS, wanted=found)
    assert found in {finding.fault for finding in outcome.findings}


async def test_somebody_who_was_never_let_in_is_caught(tmp_path: Path) -> None:
    """Who reads, for one bug, and writes, for another one that only shows after a kill."""
    variants = "lets-anybody-join,forgets-rights-at-a-kill"
    outcome = await moderated.run(tmp_path, variants, turns=5, kills_every=5)
    assert outcome.kills == 1
    assert {(one.fault, one.who) for one in outcome.findings} >= {
        ("read", STRANGER),
        ("wrote", STRANGER),
    }


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("forgets-tickets-at-a-kill", "ticket"),
        ("devices-go-back-at-a-kill", "chain"),
        ("lets-removed-devices-in-at-a-kill", "device"),
        ("resumes-in-any-room-of-the-name", "strayed"),
    ],
)
async def test_what_is_broken_behind_a_kill_alone_is_caught(
    tmp_path: Path, variant: str, found: str
) -> None:
    outcome = await moderated.run(tmp_path, variant, turns=3, kills_every=3, workers=1)
    assert outcome.kills == 1
    assert found in {finding.fault for finding in outcome.findings}
