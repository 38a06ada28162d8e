"""The addresses of a host, and which of them failed before: a dial tries those last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Candidate(NamedTuple):
    """One address to try."""

    family: int
    protocol: int
    address: tuple[Any, ...]
    doubtful: bool = False
    """True if its last connection ended before the login, and there are others to try first."""


class AddressHistory:
    """How the connections of one client to the addresses of its server ended.

    An address may begin as a relay does, and so be chosen by a dial, and then close or send nothing
    more: a load balancer whose server hangs, or a server that lets nobody log in. Without this
    record the same address would be chosen every time.
    """

    __slots__ = ("_chosen", "_failed", "_sound")

    def __init__(self) -> None:
        self._failed: dict[tuple[Any, ...], None] = {}
        """Addresses whose last connection ended before the login; the latest failure is last."""
        self._chosen: tuple[Any, ...] | None = None
        self._sound: set[tuple[Any, ...]] = set()
        """Addresses of the last dial, without those that had failed."""

    def in_order(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates in the order to try. Addresses that are not among them are
        forgotten.
        """
        by_address = {candidate.address: candidate for candidate in candidates}
        self._failed = {address: None for address in self._failed if address in by_address}
        sound = [each for each in candidates if each.address not in self._failed]
        self._sound = {each.address for each in sound}
        doubtful = bool(sound)
        return sound + [by_address[each]._replace(doubtful=doubtful) for each in self._failed]

    def chosen(self, candidate: Candidate) -> None:
        """A dial returns a connection to this address."""
        self._chosen = candidate.address

    @property
    def others(self) -> bool:
        """True if there are addresses to try before the chosen one is tried again.

        False if it failed before: the last dial has tried them.
        """
        return self._chosen in self._sound and len(self._sound) > 1

    @property
    def untried(self) -> bool:
        """True if there are others, and none has failed so far."""
        return self.others and not self._failed

    def succeeded(self) -> None:
        """The login on the chosen connection succeeded."""
        if self._chosen is not None:
            self._failed.pop(self._chosen, None)

    def failed(self) -> bool:
        """The chosen connection ended before the login. Returns ``others``."""
        if self._chosen is not None:  # None: the program has opened the socket itself
            self._failed.pop(self._chosen, None)
            self._failed[self._chosen] = None  # after the others
        return self.others
