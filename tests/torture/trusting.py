"""A client without checks: it accepts whatever the server sends.

The real client checks that each entry follows the one before it, joins again where one is missing,
and drops repeats. So it would repair, and hide, a server that skips or repeats. Half the readers of
a run are without that check: they record what the server did.
"""

from __future__ import annotations

from relay.chat.entries import Cursor
from relay.client.subscriptions import Step, Subscriptions
from relay.wire.envelopes import Behind, EntryMessage, Gap, Live


def install() -> None:
    """Remove the checks from this process's clients."""
    Subscriptions.entry = _entry  # type: ignore[method-assign]
    Subscriptions.gap = _gap  # type: ignore[method-assign]
    Subscriptions.place = _place  # type: ignore[method-assign]


def _entry(self: Subscriptions, entry: EntryMessage) -> Step:
    following = self.get(entry.log)
    if following is None or not following.joined:
        return Step.DROP
    following.received = Cursor(entry.epoch, entry.seq)
    return Step.DELIVER


def _gap(self: Subscriptions, gap: Gap) -> Step:
    following = self.get(gap.log)
    if following is None or not following.joined:
        return Step.DROP
    following.received = Cursor(gap.to_epoch, gap.to_seq)
    return Step.DELIVER


def _place(self: Subscriptions, place: Live | Behind) -> Step:
    following = self.get(place.log)
    if following is None or not following.joined:
        return Step.DROP
    return Step.DELIVER
