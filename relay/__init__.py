"""Relay: a self-hosted, encrypted chat and event relay.

This module contains the public names of the client library. They are loaded at their first use:
``import relay`` is cheap, and the server loads none of them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # that of ``typing``, which takes longer to load than this module
if TYPE_CHECKING:
    from typing import Final

    from relay.chat.accounts.answers import Seen as Seen
    from relay.chat.entries import Cursor as Cursor
    from relay.chat.entries import GapReason as GapReason
    from relay.client.account_calls import Change as Change
    from relay.client.account_calls import Device as Device
    from relay.client.account_calls import DeviceChange as DeviceChange
    from relay.client.account_calls import DeviceList as DeviceList
    from relay.client.account_calls import Devices as Devices
    from relay.client.account_calls import OpenInvitation as OpenInvitation
    from relay.client.account_calls import Preferences as Preferences
    from relay.client.account_calls import User as User
    from relay.client.account_calls import Writers as Writers
    from relay.client.address import Address as Address
    from relay.client.address import parse_address as parse_address
    from relay.client.aio import Client as Client
    from relay.client.aio.posts import Post as Post
    from relay.client.aio.room import Room as Room
    from relay.client.blocking import BlockingClient as BlockingClient
    from relay.client.blocking.posts import BlockingPost as BlockingPost
    from relay.client.blocking.room import BlockingRoom as BlockingRoom
    from relay.client.closes import ClosedByServer as ClosedByServer
    from relay.client.closes import ClosedNormally as ClosedNormally
    from relay.client.closes import DeviceRevoked as DeviceRevoked
    from relay.client.closes import GoingAway as GoingAway
    from relay.client.closes import Idle as Idle
    from relay.client.closes import Kicked as Kicked
    from relay.client.closes import LimitExceeded as LimitExceeded
    from relay.client.closes import LoginTimeout as LoginTimeout
    from relay.client.closes import LoginUnavailable as LoginUnavailable
    from relay.client.closes import NameRefused as NameRefused
    from relay.client.closes import Overloaded as Overloaded
    from relay.client.closes import ProtocolViolation as ProtocolViolation
    from relay.client.closes import Replaced as Replaced
    from relay.client.closes import ServerFailed as ServerFailed
    from relay.client.closes import TooSlow as TooSlow
    from relay.client.devices.device_key import DeviceKey as DeviceKey
    from relay.client.devices.key_files import KeyFiles as KeyFiles
    from relay.client.errors import ClientClosed as ClientClosed
    from relay.client.errors import ClientError as ClientError
    from relay.client.errors import ClientForked as ClientForked
    from relay.client.errors import ConnectFailed as ConnectFailed
    from relay.client.errors import ConnectionLost as ConnectionLost
    from relay.client.errors import DeviceChainError as DeviceChainError
    from relay.client.errors import HandshakeFailed as HandshakeFailed
    from relay.client.errors import KeyFileError as KeyFileError
    from relay.client.errors import MessagesMissing as MessagesMissing
    from relay.client.errors import MessageTooLong as MessageTooLong
    from relay.client.errors import NoDeviceKey as NoDeviceKey
    from relay.client.errors import NotARelayServer as NotARelayServer
    from relay.client.errors import NotConnected as NotConnected
    from relay.client.errors import ServerBrokeProtocol as ServerBrokeProtocol
    from relay.client.errors import ServerIdentityError as ServerIdentityError
    from relay.client.errors import ServerKeyError as ServerKeyError
    from relay.client.errors import ServerKeyMismatch as ServerKeyMismatch
    from relay.client.errors import TimedOut as TimedOut
    from relay.client.errors import UnknownServerKey as UnknownServerKey
    from relay.client.errors import WrongAccount as WrongAccount
    from relay.client.events import Behind as Behind
    from relay.client.events import Control as Control
    from relay.client.events import DeviceWarning as DeviceWarning
    from relay.client.events import Edit as Edit
    from relay.client.events import Erased as Erased
    from relay.client.events import Event as Event
    from relay.client.events import Gap as Gap
    from relay.client.events import HistoryPage as HistoryPage
    from relay.client.events import Invited as Invited
    from relay.client.events import Joined as Joined
    from relay.client.events import Live as Live
    from relay.client.events import LogEntry as LogEntry
    from relay.client.events import Member as Member
    from relay.client.events import Members as Members
    from relay.client.events import Message as Message
    from relay.client.events import Postponed as Postponed
    from relay.client.events import Reaction as Reaction
    from relay.client.events import ReadMark as ReadMark
    from relay.client.events import Redaction as Redaction
    from relay.client.events import RoomChanged as RoomChanged
    from relay.client.events import RosterChanged as RosterChanged
    from relay.client.events import SearchPage as SearchPage
    from relay.client.events import State as State
    from relay.client.events import StateChanged as StateChanged
    from relay.client.events import Stored as Stored
    from relay.client.events import Unfollowed as Unfollowed
    from relay.client.identity import Identity as Identity
    from relay.client.own_data import Deleted as Deleted
    from relay.client.own_data import OwnData as OwnData
    from relay.client.own_data import ReadUpTo as ReadUpTo
    from relay.client.refusals import AccountDisabled as AccountDisabled
    from relay.client.refusals import AlreadyJoined as AlreadyJoined
    from relay.client.refusals import BadRequest as BadRequest
    from relay.client.refusals import Banned as Banned
    from relay.client.refusals import Busy as Busy
    from relay.client.refusals import Changed as Changed
    from relay.client.refusals import CounterExpected as CounterExpected
    from relay.client.refusals import IdConflict as IdConflict
    from relay.client.refusals import InvitationNeeded as InvitationNeeded
    from relay.client.refusals import KeyRefused as KeyRefused
    from relay.client.refusals import KickedOut as KickedOut
    from relay.client.refusals import LimitReached as LimitReached
    from relay.client.refusals import LooksAlike as LooksAlike
    from relay.client.refusals import MembersOnly as MembersOnly
    from relay.client.refusals import Muted as Muted
    from relay.client.refusals import NameInvalid as NameInvalid
    from relay.client.refusals import NameTaken as NameTaken
    from relay.client.refusals import NoGuests as NoGuests
    from relay.client.refusals import NoSuchEntry as NoSuchEntry
    from relay.client.refusals import NoSuchRoom as NoSuchRoom
    from relay.client.refusals import NotAccepted as NotAccepted
    from relay.client.refusals import NotAllowed as NotAllowed
    from relay.client.refusals import NotAMember as NotAMember
    from relay.client.refusals import NotRegistered as NotRegistered
    from relay.client.refusals import NotSupported as NotSupported
    from relay.client.refusals import ReadOnly as ReadOnly
    from relay.client.refusals import Refused as Refused
    from relay.client.refusals import RegistrationClosed as RegistrationClosed
    from relay.client.refusals import RoomExists as RoomExists
    from relay.client.refusals import StoreDamaged as StoreDamaged
    from relay.client.refusals import Unavailable as Unavailable
    from relay.client.refusals import UnknownOperation as UnknownOperation
    from relay.client.refusals import UnknownOutcome as UnknownOutcome
    from relay.client.room_calls import ListedRoom as ListedRoom
    from relay.client.room_calls import RoomAction as RoomAction
    from relay.client.room_calls import RoomInfo as RoomInfo
    from relay.client.room_calls import RoomKind as RoomKind
    from relay.client.room_calls import RoomPerson as RoomPerson
    from relay.client.room_calls import RoomRole as RoomRole
    from relay.client.trust.known_servers import KnownServers as KnownServers
    from relay.client.trust.policy import KeyPolicy as KeyPolicy
    from relay.errors import RelayError as RelayError
    from relay.errors import UsageError as UsageError

__version__ = "0.2.0.dev0"

_HOMES: Final = {
    "relay.chat.accounts.answers": ("Seen",),
    "relay.chat.entries": ("Cursor", "GapReason"),
    "relay.client.account_calls": (
        "Change", "Device", "DeviceChange", "DeviceList", "Devices", "OpenInvitation",
        "Preferences", "User", "Writers",
    ),
    "relay.client.address": ("Address", "parse_address"),
    "relay.client.aio": ("Client",),
    "relay.client.aio.posts": ("Post",),
    "relay.client.aio.room": ("Room",),
    "relay.client.blocking": ("BlockingClient",),
    "relay.client.blocking.posts": ("BlockingPost",),
    "relay.client.blocking.room": ("BlockingRoom",),
    "relay.client.devices.device_key": ("DeviceKey",),
    "relay.client.closes": (
        "ClosedByServer", "ClosedNormally", "DeviceRevoked", "GoingAway", "Idle", "Kicked",
        "LimitExceeded", "LoginTimeout", "LoginUnavailable", "NameRefused", "Overloaded",
        "ProtocolViolation", "Replaced", "ServerFailed", "TooSlow",
    ),
    "relay.client.errors": (
        "ClientClosed", "ClientError", "ClientForked", "ConnectFailed", "ConnectionLost",
        "DeviceChainError", "HandshakeFailed", "KeyFileError", "MessageTooLong", "MessagesMissing",
        "NoDeviceKey", "NotARelayServer", "NotConnected", "ServerBrokeProtocol",
        "ServerIdentityError", "ServerKeyError", "ServerKeyMismatch", "TimedOut",
        "UnknownServerKey", "WrongAccount",
    ),
    "relay.client.refusals": (
        "AccountDisabled", "AlreadyJoined", "BadRequest", "Banned", "Busy", "Changed",
        "CounterExpected", "IdConflict", "InvitationNeeded", "KeyRefused", "KickedOut",
        "LimitReached", "LooksAlike", "MembersOnly", "Muted", "NameInvalid", "NameTaken",
        "NoGuests", "NoSuchEntry", "NoSuchRoom", "NotAMember", "NotAccepted", "NotAllowed",
        "NotRegistered", "NotSupported", "ReadOnly", "Refused", "RegistrationClosed", "RoomExists",
        "StoreDamaged", "Unavailable", "UnknownOperation", "UnknownOutcome",
    ),
    "relay.client.events": (
        "Behind", "Control", "DeviceWarning", "Edit", "Erased", "Event", "Gap", "HistoryPage",
        "Invited", "Joined", "Live", "LogEntry", "Member", "Members", "Message", "Postponed",
        "Reaction", "ReadMark", "Redaction", "RoomChanged", "RosterChanged", "SearchPage", "State",
        "StateChanged", "Stored", "Unfollowed",
    ),
    "relay.client.identity": ("Identity",),
    "relay.client.devices.key_files": ("KeyFiles",),
    "relay.client.trust.known_servers": ("KnownServers",),
    "relay.client.own_data": ("Deleted", "OwnData", "ReadUpTo"),
    "relay.client.room_calls": (
        "ListedRoom", "RoomAction", "RoomInfo", "RoomKind", "RoomPerson", "RoomRole",
    ),
    "relay.client.trust.policy": ("KeyPolicy",),
    "relay.errors": ("RelayError", "UsageError"),
}  # fmt: skip
__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would accept any name otherwise

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'relay' has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
