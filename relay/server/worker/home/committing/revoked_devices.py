"""The devices from which a home stores nothing more, whatever they have sent before."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import compress
from typing import Final, final

from relay.chat.entries import Kind, is_copy
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.server.worker.home.submissions import Waiting, refuse
from relay.wire.codes import ErrorCode

SYSTEM: Final = int(Kind.SYSTEM)

REVOKED_MAX: Final = 65_536
"""Number of devices remembered as revoked. Each was valid until a moment ago: its sessions have
ended, and the account's home refuses later logins. This covers what was already on its way."""


@final
class RevokedDevices:
    """The devices from which a home stores nothing more."""

    def __init__(self, most: int = REVOKED_MAX) -> None:
        """Create without devices. ``most``: how many are remembered."""
        self._most = most
        self.devices: dict[tuple[str, bytes], None] = {}
        """(handle, key id), the newest last."""
        self._unconfirmed: set[tuple[str, bytes]] = set()
        """Those of them whose account has another home now. The one before may have died before it
        could tell that they are devices still, with other rights."""
        self.is_device: Callable[[str, bytes], bool | None] = _unknown
        """Whether a key id is of a device that may log in, by the log of its account; None: that
        cannot be read now."""

    def add(self, handle: str, key_ids: list[bytes]) -> None:
        """Remember devices; drop the oldest beyond the limit."""
        self.lift(handle, key_ids)
        for key_id in key_ids:  # the newest, and confirmed
            self.devices[handle, key_id] = None
        while len(self.devices) > self._most:
            del self.devices[next(iter(self.devices))]

    def lift(self, handle: str, key_ids: list[bytes]) -> None:
        """Remove devices that are valid again."""
        for key_id in key_ids:
            self.devices.pop((handle, key_id), None)
            self._unconfirmed.discard((handle, key_id))

    def mark_unconfirmed(self, partitions: Collection[int]) -> None:
        """These partitions have another home: look again at accounts in them, before refusing."""
        self._unconfirmed.intersection_update(self.devices)
        self._unconfirmed.update(
            device
            for device in self.devices
            if partition_of(INBOX_PREFIX + device[0]) in partitions
        )

    def has(self, handle: str, key_id: bytes) -> bool:
        """Tell whether this is one of them."""
        device = handle, key_id
        if device not in self.devices:
            return False
        if device in self._unconfirmed:
            good = self.is_device(handle, key_id)
            if good:
                self.lift(handle, [key_id])
                return False
            if good is not None:
                self._unconfirmed.discard(device)
        return True

    def includes(self, waiting: Waiting) -> bool:
        """Return True if a revoked device has sent or requested this.

        Does not apply to copies, which were accepted before, nor to changes of the device's own
        account: those are decided by the list of devices, in the order of the log.
        """
        submission = waiting.submission
        if is_copy(submission) or not self.has(submission.sender, submission.key_id):
            return False
        return submission.kind != SYSTEM or submission.log != INBOX_PREFIX + submission.sender

    def kept(self, group: list[Waiting]) -> list[Waiting]:
        """Refuse the submissions of revoked devices and return the others."""
        if not self.devices:
            return group
        included = [self.includes(one) for one in group]  # once: the next answer may be another
        refuse(list(compress(group, included)), ErrorCode.KEY_REFUSED)
        return [one for one, revoked in zip(group, included, strict=True) if not revoked]


def _unknown(_handle: str, _key_id: bytes) -> bool | None:
    """No log can be read."""
    return None
