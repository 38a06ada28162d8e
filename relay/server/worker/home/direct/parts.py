"""The two parts of a home that handle direct messages: before and after acceptance."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, NamedTuple

from relay.chat.partition import partition_of

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.home.direct.copies import Copies
    from relay.server.worker.home.direct.permissions import Permissions


class Direct(NamedTuple):
    """Permissions and copies of direct messages."""

    permissions: Permissions
    """Holds messages while the recipient's home is asked."""
    copies: Copies
    """Delivers accepted ones to the recipient's log."""

    def forget(self, port: Port, partition: int) -> None:
        """Drop the messages that a worker is about to resend, if they are not accepted yet."""
        self.permissions.forget(
            lambda one: one.port is port and partition_of(one.submission.log) == partition
        )

    def give_up_others(
        self, owns: Callable[[int], bool], opened: Container[int]
    ) -> list[tuple[Port, int]]:
        """Drop what belongs to partitions of other workers.

        Return the workers that must be told, with the partition, once each.
        """
        # A partition that is still open may come back; its pending copies are not read again.
        self.copies.forget_others(lambda index: owns(index) or index in opened)
        return self.permissions.refuse(owns)
