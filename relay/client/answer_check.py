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
        case wire.Join() | wire.Leave() | wire.Who(), wire.Joined() | wire.Left() | wire.Members():
            _same(asked.log, answer.log)
        case _:
            pass


def _same(about: str, found: str) -> None:
    if found != about:
        raise EnvelopeError("an answer about another room or person")


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
    """Check that entries belong to the log; those of ``@bob`` are in this account's inbox."""
    if len(entries) > most:
        raise EnvelopeError("more entries than were asked for")
    inbox = names.is_inbox(log)
    for entry in entries:
        if not names.is_inbox(entry.log) if inbox else entry.log != log:
            raise EnvelopeError("an entry of another room in an answer")
