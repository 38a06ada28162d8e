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


def test_what_the_checker_finds() -> None:
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), BANNED, ("bob", None), MESSAGE)
    assert list(rights.check(log, {"alice": range(1, 8)})) == [Finding("wrote", "bob", 6)]
    log = log_of(PRIVATE, MESSAGE, INVITED, ("bob", None), BANNED, MESSAGE)
    assert list(rights.check(log, {"bob": range(1, 6)})) == []
    assert list(rights.check(log, {"bob": range(1, 7)})) == [Finding("read", "bob", 6)]
    assert list(rights.check(log, {"eve": [1, 6]})) == [Finding("read", "eve", 6)]
    again = log_of(PRIVATE, INVITED, BANNED, MESSAGE, ("alice", events.Freed("bob")), INVITED)
    assert list(rights.check(again, {"bob": range(1, 7)})) == []


# --- a whole relay -------------------------------------------------------------------------------
async def test_bans_invitations_and_kills(tmp_path: Path) -> None:
    """No message after a ban, no entry for a user who may not read."""
    outcome = await moderated.run(tmp_path, kills_every=3)
    assert outcome.findings == []
    assert outcome.kills
    assert outcome.links > moderated.ROUNDS
    assert outcome.resumed, "a client that reconnects resumes by ticket"


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("rights-of-a-moment-ago", "wrote"),
        ("nobody-is-put-out", "read"),
        ("tickets-twice", "ticket"),
        ("hides-devices", "chain"),
    ],
)
async def test_broken_relays_are_caught(tmp_path: Path, variant: str, found: str) -> None:
    """Each bug that a reasonable implementation might have."""
    assert found in {finding.fault for finding in (await moderated.run(tmp_path, variant)).findings}


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
    ],
)
async def test_what_is_broken_behind_a_kill_alone_is_caught(
    tmp_path: Path, variant: str, found: str
) -> None:
    outcome = await moderated.run(tmp_path, variant, turns=3, kills_every=3, workers=1)
    assert outcome.kills == 1
    assert found in {finding.fault for finding in outcome.findings}
