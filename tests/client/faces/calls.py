"""Every method of a client that waits, with legal arguments, for tests that try all of them."""

from __future__ import annotations

from typing import Any, Final

from relay.client.account_calls import DeviceChange, DeviceList
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.events import Message

MESSAGE: Final = Message("lobby", b"epoch...", 1, 0, 0, "ann", b"", b"producer", 1, 0, "", b"")
KEY: Final = public_text(DeviceKey.generate().public)
_LIST: Final = DeviceList(b"r" * 32, 0, b"r" * 32)
CHANGE: Final = DeviceChange("somebody", "", _LIST, _LIST, ())
CALLS: Final[dict[str, tuple[Any, ...]]] = {
    "connect": (), "close": (), "join": ("lobby",), "leave": ("lobby",), "who": ("lobby",),
    "history": ("lobby",), "send": ("lobby", "x"), "post": ("lobby", "x"), "flush": (),
    "search": ("lobby", "word"),
    "events": (), "next_event": (), "pump": (),
    "devices": (), "approve_device": (KEY,), "remove_device": (KEY,), "rename_device": (KEY, "x"),
    "add_device": (DeviceKey.generate(),), "add_recovery_key": (), "invite": (),
    "revoke_invitation": ("a" * 52,),
    "user": ("somebody",), "users": (), "invitations": (), "change_user": ("somebody", "disable"),
    "rooms": (), "room_info": ("lobby",), "create_room": ("lobby",),
    "change_room": ("lobby", "enter"),
    "edit": (MESSAGE, "x"), "redact": (MESSAGE,), "react": (MESSAGE, "x"),
    "mark_read": (MESSAGE,), "read_marks": (), "block": ("somebody",), "unblock": ("somebody",),
    "preferences": (), "set_preferences": (), "last_seen": ("somebody",),
    "export": (), "delete_account": (),
    "device_change": ("somebody",), "accept_devices": (CHANGE,),
}  # fmt: skip
"""Its arguments, by its name; ``test_arguments`` checks that no method is missing."""
