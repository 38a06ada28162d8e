"""The pinned device chains while a client is connected, within limits. No I/O."""

from __future__ import annotations

import logging
from typing import Final

from relay.chat.accounts import chain
from relay.chat.accounts.chain import Chain, Pin

log: Final = logging.getLogger(__name__)
PINS_MAX: Final = 65_536
"""Pinned names at one server; beyond it none is added. None is evicted either: otherwise invented
names could displace real ones."""
CHANGES_MAX: Final = 4096
"""Pins that one connection can change in the file, where each change appends a line. Further
changes last as long as the program: the next one knows a shorter chain."""


class Pins:
    """The pins of one server: updated by chains that continue them, or by a person's decision."""

    __slots__ = ("_changes_left", "_full", "known", "seen")

    def __init__(self) -> None:
        self.known: dict[str, Pin] = {}
        self.seen: dict[str, Pin] = {}
        """Pins to be written to a file; cleared by the writer."""
        self._changes_left = CHANGES_MAX
        self._full = False
        """True if a limit was reached on this connection, and logged."""

    def begin(self, known: dict[str, Pin]) -> None:
        """Begin a connection. ``known``: the pins; updated in place."""
        self.known = known
        self._changes_left = CHANGES_MAX
        self._full = False

    def contradiction(self, chains: list[Chain]) -> tuple[str, Pin] | None:
        """Return how a verified chain contradicts its pin, and that pin; None: it does not."""
        pin = self.known.get(chains[-1].handle)
        if pin is None or chain.extends(chains, pin):
            return None
        return changed(chains, pin), pin

    def compared(self, chains: list[Chain]) -> str:
        """Return how a chain contradicts its pin; empty: it does not, and is now pinned."""
        found = self.contradiction(chains)
        if found is not None:
            return found[0]
        last = chains[-1]
        if self.known.get(last.handle) != last.pin:
            self._keep(last.handle, last.pin)
        return ""

    def put(self, name: str, pin: Pin) -> None:
        """Set a pin by a person's decision, whatever was pinned before."""
        self.known[name] = self.seen[name] = pin

    def _keep(self, name: str, pin: Pin) -> None:
        """Pin a chain, in memory and in the file, within the bounds of both."""
        new = name not in self.known
        fits = len(self.known) < PINS_MAX if new else self._changes_left > 0
        if fits:
            self.seen[name] = pin
            self._changes_left -= not new
        elif not self._full:
            self._full = True
            log.warning("too many lists of devices were seen here: no more are remembered")
        if fits or not new:
            self.known[name] = pin


def changed(chains: list[Chain], pin: Pin) -> str:
    """Describe how a chain contradicts a pin."""
    if chains[0].root != pin.root:
        return (
            "this account has begun anew, with other devices: an operator has reset it, or it is "
            "somebody else. Ask them in another way before you trust it"
        )
    if chains[-1].number < pin.number:
        return "the server has lost, or hides, changes of their devices that were seen before"
    return "their list of devices contradicts what was seen before: somebody has forged it"
