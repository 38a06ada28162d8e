"""Verifies device chains, some links at a time. No I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

from relay.chat.accounts.chain import Chain, Pin, Reading
from relay.chat.accounts.links import LinkError
from relay.client.errors import DeviceChainError
from relay.client.refusals import refused
from relay.wire.codes import ErrorCode
from relay.wire.device_keys import verify

LINKS_PER_TURN: Final = 16
"""Links that are verified before the program has its turn: about 5 ms. A server may send chains of
256 links, one after the other."""


class ChainCheck(NamedTuple):
    """A chain that this client has requested by itself, and is verifying."""

    name: str
    """Of the account."""
    packed: list[bytes]
    """As the server has sent it."""
    reading: Reading
    """Of it; or, if the server has lost links of this account, of all that are known here."""
    gives_back: bool
    """True in the latter case."""
    pinned: Pin | None
    """What was pinned of it when this check began."""


class ChainReading:
    """Verifies a chain that a call has requested, some links at a time."""

    def __init__(self, packed: list[bytes], name: str, server_id: bytes) -> None:
        """Take what the server has sent, and whose chain it must be."""
        self._reading = Reading(packed)
        self._owner = server_id, name

    @property
    def chains(self) -> list[Chain]:
        """The chain after each of its links."""
        return self._reading.chains

    def advance(self) -> bool:
        """Verify the next links. Return True once the chain is whole.

        Raises:
            DeviceChainError: it is invalid, or belongs to another account.
            NotRegistered: there is none.
        """
        try:
            self._reading.advance(LINKS_PER_TURN, verify)
        except LinkError as error:
            raise DeviceChainError(f"the server sent a false list of devices: {error}") from None
        if not self._reading.whole:
            return False
        if not self.chains:
            raise refused(ErrorCode.NOT_REGISTERED)
        last = self.chains[-1]
        if (last.server_id, last.handle) != self._owner:
            raise DeviceChainError("the server sent somebody else's list of devices")
        return True
