"""What the two faces of the client have in common: what one may look at."""

from __future__ import annotations

from relay.chat.entries import Cursor
from relay.client.address import Address, parse_address
from relay.client.errors import NotConnected
from relay.client.events import State
from relay.client.identity import Identity
from relay.client.state import ClientState
from relay.client.trust import KeyPolicy


class ClientBase:
    """A client as its program sees it; ``aio.Client`` and ``blocking.BlockingClient`` drive it."""

    _state: ClientState
    _started = False
    """True from the first ``connect``."""

    def _check_started(self) -> None:
        if not self._started:
            raise NotConnected("not connected: call connect() first, or use the client in a 'with'")

    @property
    def name(self) -> str:
        """The handle, as the server spells it."""
        return self._state.name

    @property
    def state(self) -> State:
        """Where the client is."""
        return self._state.state

    @property
    def server_fingerprint(self) -> str | None:
        """Of the server's key; None before it is known."""
        return self._state.server_fingerprint

    @property
    def cursors(self) -> dict[str, Cursor]:
        """For each room that is followed, the last entry that the program took: save these."""
        return self._state.cursors

    @property
    def identity(self) -> Identity:
        """Who this instance is, with its counters as they stand: save it, and keep it secret."""
        return self._state.identity

    @property
    def unacknowledged(self) -> int:
        """Sends without an outcome."""
        return self._state.unacknowledged

    @property
    def statistics(self) -> dict[str, int]:
        """Counts since the start: logins, resent, repeats, rejoins."""
        return self._state.statistics


def target(
    address: str | Address, key_policy: KeyPolicy | None
) -> tuple[Address, KeyPolicy, str | None]:
    """Return the address, the policy for its key, and the fingerprint that is expected there.

    Raises:
        UsageError: the address, or the known-servers file.
    """
    if not isinstance(address, str | Address):
        raise TypeError(f"address must be a str or an Address, not {type(address).__name__}")
    if key_policy is not None and not isinstance(key_policy, KeyPolicy):
        raise TypeError(f"key_policy must be a KeyPolicy, not {type(key_policy).__name__}")
    place = parse_address(address) if isinstance(address, str) else address
    policy = KeyPolicy() if key_policy is None else key_policy
    return place, policy, policy.expected(place)
