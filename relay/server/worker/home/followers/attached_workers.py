"""The workers that have members: what they may send to this home, and which logs they follow.

A worker attaches to a partition before it sends anything about its logs, and again after each
NOT_HOME (``bus.messages.Attach``). It subscribes to a log to receive its batches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from relay.bus.messages import NotFollowed, NotHome, Subscribed
from relay.chat.partition import partition_of
from relay.server.worker.error_codes import unavailable_text
from relay.store.errors import NotTheWriter, StoreCorrupt, StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.bus.messages import Damaged, Subscribe
    from relay.server.worker.home.followers.publishing import Interest
    from relay.server.worker.home.partitions import OwnPartitions


@final
class Followers:
    """The attached workers and their subscriptions."""

    def __init__(self, partitions: OwnPartitions, interest: Interest) -> None:
        """Create without followers.

        Args:
            partitions: of this worker.
            interest: which workers receive batches.
        """
        self._partitions = partitions
        self._interest = interest
        self.attached: set[tuple[Port, int]] = set()
        """Which worker may send about which partition. The set object never changes."""
        self.waiting: dict[int, list[tuple[Port, str]]] = {}
        """By partition: subscriptions that wait for the end of a commit."""
        self._until_available: dict[int, dict[tuple[Port, str], None]] = {}
        """By partition: subscriptions that wait until it can be opened. They have been told."""
        self.before_attach: Callable[[], None] = _nothing
        """Called before a worker attaches to a partition: checks its owner."""

    # --- partitions ---------------------------------------------------------------------------
    def may_send(self, port: Port, log: str) -> bool:
        """Return True if a worker may send about a log.

        Otherwise the message was sent before the peer processed NOT_HOME; it is sent again after
        ATTACH.
        """
        return (port, partition_of(log)) in self.attached

    def attach(self, port: Port, partition: int) -> None:
        """A worker attaches: it will resend all it has for a partition, with uncommitted sends."""
        self.before_attach()
        waiting = self.waiting.get(partition, [])
        waiting[:] = [each for each in waiting if each[0] is not port]
        self._forget_unavailable(lambda one, name: one is port and partition_of(name) == partition)
        self._interest.forget(port, partition)
        if self._partitions.owns(partition):
            self.attached.add((port, partition))
        else:
            port.send(NotHome(partition))

    def refuse(self, port: Port, partition: int) -> None:
        """Answer that this worker is not the home of a partition, or cannot be now."""
        self.attached.discard((port, partition))
        port.send(NotHome(partition))

    def refuse_others(self) -> None:
        """The table has changed: refuse the partitions that others own now."""
        for port, partition in list(self.attached):
            if not self._partitions.owns(partition):
                self.refuse(port, partition)

    def damaged(self, port: Port, message: Damaged) -> None:
        """A worker has found that the file of a partition is damaged."""
        if (port, message.partition) in self.attached:
            self._partitions.refuse(message.partition, message.reason)

    def refuse_logs(self, index: int) -> None:
        """A partition is refused: remove all followers of its logs."""
        waiting = (*self.waiting.pop(index, ()), *self._until_available.pop(index, ()))
        for port, name in waiting:
            port.send(_damaged(name))
        for name, ports in list(self._interest.logs.items()):
            if partition_of(name) == index:
                for port in ports:
                    port.send(_damaged(name))
        self._interest.forget_partition(index)

    def forget_partition(self, partition: int) -> None:
        """Another worker is the home of a partition now: followers ask there."""
        self.waiting.pop(partition, None)
        self._until_available.pop(partition, None)
        self._interest.forget_partition(partition)

    def drop(self, port: Port) -> None:
        """A worker has died."""
        self.attached.difference_update([each for each in self.attached if each[0] is port])
        for waiting in self.waiting.values():
            waiting[:] = [each for each in waiting if each[0] is not port]
        self._forget_unavailable(lambda one, _: one is port)
        self._interest.drop(port)

    # --- logs ---------------------------------------------------------------------------------
    def subscribe(self, port: Port, message: Subscribe) -> None:
        """Answer with the head and start the stream, in the same turn (invariant "One seam")."""
        index = partition_of(message.log)
        if (port, index) not in self.attached:
            return
        if index in self._partitions.committing:
            # A thread is moving the head: answered as soon as that is committed.
            self.waiting.setdefault(index, []).append((port, message.log))
            return
        self._subscribe(index, port, message.log)

    def unsubscribe(self, port: Port, name: str) -> None:
        """Remove a worker's subscription to a log."""
        waiting = self.waiting.get(partition_of(name), [])
        waiting[:] = [each for each in waiting if each != (port, name)]
        self._until_available.get(partition_of(name), {}).pop((port, name), None)
        self._interest.remove(name, port)

    def committed(self, index: int) -> None:
        """A commit has finished: answer the subscriptions that waited for it."""
        for port, name in self.waiting.pop(index, ()):
            self._subscribe(index, port, name)

    def available(self, index: int) -> None:
        """A partition can be opened and written again."""
        for port, name in self._until_available.pop(index, {}):
            self._subscribe(index, port, name)

    def _forget_unavailable(self, unwanted: Callable[[Port, str], bool]) -> None:
        for waiting in self._until_available.values():
            for port, name in list(waiting):
                if unwanted(port, name):
                    del waiting[port, name]

    def _subscribe(self, index: int, port: Port, name: str) -> None:
        try:
            head = self._partitions.head(name)
            state = self._partitions.state(name)
        except StoreCorrupt as error:
            self._partitions.failed(index, error)
            port.send(_damaged(name))
            return
        except NotTheWriter:
            self.refuse(port, index)
            return
        except StoreError as error:
            # Requests are answered now; those that still follow the log are served once it is
            # available.
            self._partitions.failed(index, error)
            self._until_available.setdefault(index, {})[port, name] = None
            port.send(NotFollowed(name, int(ErrorCode.UNAVAILABLE), unavailable_text(error)))
            return
        self._interest.add(name, port)
        port.send(Subscribed(name, head.epoch, head.seq, state))


def _damaged(name: str) -> NotFollowed:
    return NotFollowed(name, int(ErrorCode.DAMAGED), "")


def _nothing() -> None:
    """Do nothing: there is no partition table."""
