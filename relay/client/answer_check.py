"""Checks that an answer fits its request: its type, its room or user, and its bounds.

Otherwise a malicious server could make a program show one room's messages as those of another, or
request the same page for ever.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, TypeAlias

from relay.chat import names
from relay.errors import EnvelopeError
from relay.wire import envelopes as wire
from relay.wire.envelopes import ClientEnvelope

Answer: TypeAlias = (
    wire.Joined | wire.Left | wire.Members | wire.Page | wire.Found | wire.Chain | wire.Done
)
ANSWERS: Final[dict[type[ClientEnvelope], type[Answer]]] = {
    wire.Join: wire.Joined,
    wire.Leave: wire.Left,
    wire.Who: wire.Members,
    wire.History: wire.Page,
    wire.Search: wire.Found,
    wire.Devices: wire.Chain,
    wire.Account: wire.Done,
    wire.Room: wire.Done,
    wire.Prove: wire.Done,
}
"""The type of the answer to each request, if it is not an ERROR."""


def check_answer(asked: ClientEnvelope, answer: Answer) -> None:
    """Raise EnvelopeError if this is not a valid answer to that request."""
    expected = ANSWERS[type(asked)]
    if type(answer) is not expected:
        raise EnvelopeError(f"{type(answer).__name__} for an answer, not {expected.__name__}")
    match asked, answer:
        case wire.Devices(name=about), wire.Chain(name=found):
            _same(about, found)
        case wire.History(log=about), wire.Page(log=found):
            _same(about, found)
            _check_page(asked, answer)
        case wire.Search(log=about), wire.Found(log=found):
            _same(about, found)
            _check_entries(about, asked.count, answer.entries)
        case wire.Join(log=about), wire.Joined(log=found):
            _same(about, found)
            _check_start(asked, answer)
        case wire.Leave() | wire.Who(), wire.Left() | wire.Members():
            _same(asked.log, answer.log)
        case _:
            pass


def _same(about: str, found: str) -> None:
    if found != about:
        raise EnvelopeError("an answer about another room or person")


def check_entry(entry: wire.EntryMessage, inbox: str) -> None:
    """Check that the fields of an entry do not contradict each other.

    Otherwise a message of a room could pass for a direct one, and the reply to it would go
    elsewhere.

    Args:
        entry: from the server.
        inbox: of this account.

    Raises:
        EnvelopeError: they do.
    """
    if entry.prev >= entry.seq:
        raise EnvelopeError("an entry that follows itself, or a later one")
    if not names.is_inbox(entry.log):
        if entry.to:
            raise EnvelopeError("a direct message in a room")
    elif entry.log != inbox or (entry.to and entry.log[1:] not in (entry.sender, entry.to)):
        raise EnvelopeError("a direct message between others")


def _check_start(asked: wire.Join, joined: wire.Joined) -> None:
    """Check that nothing after the requested cursor is skipped."""
    if asked.epoch is not None:
        if (joined.start_epoch, joined.start_seq) != (asked.epoch, asked.seq):
            raise EnvelopeError("a join that starts elsewhere than asked for")
    elif joined.start_seq > joined.head_seq:
        raise EnvelopeError("a join that starts after the end of the room")


def _check_page(asked: wire.History, page: wire.Page) -> None:
    """Check that entries are in ascending order, on the requested side of ``seq``."""
    _check_entries(asked.log, asked.count, page.entries)
    seqs = [entry.seq for entry in page.entries]
    if asked.forward:
        seqs.insert(0, asked.seq)
    elif asked.seq:
        seqs.append(asked.seq)
    if any(first >= second for first, second in pairwise(seqs)):
        raise EnvelopeError("a page of entries that were not asked for, or in another order")


def _check_entries(log: str, most: int, entries: list[wire.EntryMessage]) -> None:
    """Check that entries belong to the log, or are among those exchanged with ``@bob``."""
    if len(entries) > most:
        raise EnvelopeError("more entries than were asked for")
    peer = log[1:] if names.is_inbox(log) else None
    for entry in entries:
        if entry.log != log and (peer is None or not names.is_inbox(entry.log)):
            raise EnvelopeError("an entry of another room in an answer")
        if entry.log != log and peer not in (entry.sender, entry.to):
            raise EnvelopeError("an entry of another conversation in an answer")
