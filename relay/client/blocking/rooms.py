# Generated from relay/client/aio by `python -m tests.blocking_client`: edit that.
"""Calls of a client about rooms: listing, inspecting and changing them."""

from __future__ import annotations

from relay.chat.rooms import requests
from relay.client import arguments, lists, room_calls
from relay.client.blocking.accounts import BlockingAccounts
from relay.client.room_calls import ListedRoom, RoomAction, RoomInfo, RoomKind, RoomRole


class BlockingRooms(BlockingAccounts):
    """The calls of a client about rooms."""

    def rooms(
        self,
        *,
        mine: bool = False,
        whole: bool = False,
        timeout: float | None = None,
    ) -> list[ListedRoom]:
        """Return the rooms visible to this account, in order of their names.

        Args:
            mine: only those in which it has a role, or an invitation, with unread counts. The
                number of requests does not depend on how many rooms the server has.
            whole: raise StoreDamaged if some may be missing because stored data is damaged.
                Otherwise they are left out.
            timeout: seconds, for each of several requests; None: ``answer_timeout_s``.

        Raises:
            Refused: StoreDamaged, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        questions = lists.rooms(
            mine=arguments.flag("mine", mine), whole=arguments.flag("whole", whole)
        )
        return self._in_parts(questions, timeout)

    def room_info(self, room: str, *, timeout: float | None = None) -> RoomInfo:
        """Return the state of a room.

        Args:
            room: its name; it need not be joined.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NoSuchRoom, MembersOnly, Banned, ...
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        questions = lists.room_state(room_calls.checked_room(room))
        return self._in_parts(questions, timeout)

    def create_room(
        self,
        room: str,
        kind: RoomKind = "public",
        *,
        listed: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Create a room, and own it. A public room is also created by its first message.

        Args:
            room: its name.
            kind: who may read and write.
            listed: whether lists show it to users who are not members.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: RoomExists, NotAllowed, ...
            ValueError, NameInvalid: an argument; nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        name = room_calls.checked_room(room)
        request = requests.Create(room_calls.checked_kind(kind), arguments.flag("listed", listed))
        self._ask_room(name, request, requests.ANYTHING_SEEN, timeout)

    def change_room(
        self,
        room: str,
        action: RoomAction,
        person: str | None = None,
        *,
        text: str = "",
        seconds: float = 0,
        kind: RoomKind | None = None,
        listed: bool = True,
        role: RoomRole | None = None,
        seq: int = 0,
        keep: tuple[int, int, int] = (0, 0, 0),
        seen: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Change a room, or somebody's rights in it.

        Args:
            room: its name; it need not be joined.
            action: "topic", "title" (with text); "kind" (with kind, listed); "role" (with person,
                role); "invite", "kick", "ban", "unban", "mute", "unmute" (with person; for some a
                text with the reason, and seconds after which it ends by itself); "close", "reopen";
                "enter": become a permanent member, or accept an invitation; "leave": cease to be
                one; "keep" (with keep); "redact" (with seq, text): erase message number seq;
                "delete".
            person: the user it is about.
            text: the topic or title, or the reason.
            seconds: how long a ban or mute lasts; 0: until it is lifted.
            kind: of the room.
            listed: whether lists show it to users who are not members.
            role: "none", "member", "moderator" or "owner".
            seq: the number of the message.
            keep: how long messages are kept: seconds, messages, bytes; 0: as in the server's
                settings, which may limit the choice.
            seen: the number of the last change of the room that the decision is based on. None: the
                last one taken from this client, if it has joined the room; otherwise the room's
                current state.
            timeout: seconds; None: ``answer_timeout_s``.

        Raises:
            Refused: NotAllowed; Changed, if somebody else has changed the same thing after
                ``seen``; NoSuchRoom, NotRegistered, ...
            ValueError, TypeError, NameInvalid: an argument; nothing was sent.
            TimedOut: no answer in time.
            ClientError: the client has ended.
        """
        name = room_calls.checked_room(room)
        request = room_calls.change(
            action, person=person, text=text, seconds=seconds, kind=kind, listed=listed, role=role,
            seq=seq, keep=keep,
        )  # fmt: skip
        self._ask_room(name, request, self._seen(name, seen), timeout)

    def _ask_room(
        self, room: str, request: requests.Request, seen: int, timeout_s: float | None
    ) -> None:
        self._ask(lambda chat, token: chat.ask_room(room, request, seen, token), timeout_s)
