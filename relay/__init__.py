"""Relay: a self-hosted, encrypted chat and event relay.

The public names of the client library. They are loaded when they are first used: ``import relay``
costs nothing, and the server loads none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from relay.chat.entries import Cursor as Cursor
    from relay.chat.entries import GapReason as GapReason
    from relay.client.address import Address as Address
    from relay.client.address import parse_address as parse_address
    from relay.client.aio import Client as Client
    from relay.client.blocking import BlockingClient as BlockingClient
    from relay.client.errors import ClientError as ClientError
    from relay.client.events import Behind as Behind
    from relay.client.events import Gap as Gap
    from relay.client.events import HistoryPage as HistoryPage
    from relay.client.events import Joined as Joined
    from relay.client.events import Live as Live
    from relay.client.events import Members as Members
    from relay.client.events import Message as Message
    from relay.client.events import Postponed as Postponed
    from relay.client.events import RosterChanged as RosterChanged
    from relay.client.events import State as State
    from relay.client.events import StateChanged as StateChanged
    from relay.client.events import Stored as Stored
    from relay.client.events import Unfollowed as Unfollowed
    from relay.client.identity import Identity as Identity
    from relay.client.known_servers import KnownServers as KnownServers
    from relay.client.trust import KeyPolicy as KeyPolicy
    from relay.errors import RelayError as RelayError
    from relay.errors import UsageError as UsageError

__version__ = "0.1.0"

_HOMES: Final = {
    "relay.chat.entries": ("Cursor", "GapReason"),
    "relay.client.address": ("Address", "parse_address"),
    "relay.client.aio": ("Client",),
    "relay.client.blocking": ("BlockingClient",),
    "relay.client.errors": ("ClientError",),
    "relay.client.events": (
        "Behind", "Gap", "HistoryPage", "Joined", "Live", "Members", "Message", "Postponed",
        "RosterChanged", "State", "StateChanged", "Stored", "Unfollowed",
    ),
    "relay.client.identity": ("Identity",),
    "relay.client.known_servers": ("KnownServers",),
    "relay.client.trust": ("KeyPolicy",),
    "relay.errors": ("RelayError", "UsageError"),
}  # fmt: skip
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'relay' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
