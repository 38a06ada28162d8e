"""The workers that have members: what they may send to this home, and which logs they follow.

A worker attaches a partition before it sends anything about its logs, and attaches it anew after
each NOT_HOME (``bus.messages.Attach``). It subscribes to a log to be sent its batches.
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
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.publishing import Interest


@final
class Followers:
    """See the module's docstring."""

    def __init__(self, partitions: OwnPartitions, interest: Interest) -> None:
        """Begin with none.

        Args:
            partitions: of this worker.
            interest: where batches go.
        """
        self._partitions = partitions
        self._interest = interest
        self.attached: set[tuple[Port, int]] = set()
        """Who may send what concerns which partition. The object stays the same."""
        self.waiting: dict[int, list[tuple[Port, str]]] = {}
        """By partition: subscriptions that wait for the end of a commit."""
        self._until_available: dict[int, dict[tuple[Port, str], None]] = {}
        """By partition: subscriptions that wait until it can be opened. They have been told."""
        self.before_attach: Callable[[], None] = _nothing
        """Called before a worker attaches a partition: looks whose it is."""

    # --- partitions ---------------------------------------------------------------------------
    def may_send(self, port: Port, log: str) -> bool:
        """Tell whether a worker may send what concerns a log.

        Otherwise it was sent before the peer processed NOT_HOME; it is sent again after ATTACH.
        """
        return (port, partition_of(log)) in self.attached

    def attach(self, port: Port, partition: int) -> None:
        """A worker is about to send anew what it has in a partition, uncommitted sends too."""
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
        """Answer that this is not the home of a partition, or cannot be it now."""
        self.attached.discard((port, partition))
        port.send(NotHome(partition))

    def refuse_others(self) -> None:
        """The table has changed: this is not the home any more of what others own."""
        for port, partition in list(self.attached):
            if not self._partitions.owns(partition):
                self.refuse(port, partition)

    def damaged(self, port: Port, message: Damaged) -> None:
        """A worker has found that the file of a partition is damaged."""
        if (port, message.partition) in self.attached:
            self._partitions.refuse(message.partition, message.reason)

    def refuse_logs(self, index: int) -> None:
        """A partition is refused: nobody follows any of its logs any more."""
        waiting = (*self.waiting.pop(index, ()), *self._until_available.pop(index, ()))
        for port, name in waiting:
            port.send(_damaged(name))
        for name, ports in list(self._interest.logs.items()):
            if partition_of(name) == index:
                for port in ports:
                    port.send(_damaged(name))
        self._interest.forget_partition(index)

    def forget_partition(self, partition: int) -> None:
        """Another worker is the home of a partition now: whoever follows it asks there."""
        self.waiting.pop(partition, None)
        self._until_available.pop(partition, None)
        self._interest.forget_partition(partition)

    def drop(self, port: Port) -> None:
        """A worker is gone."""
        self.attached.difference_update([each for each in self.attached if each[0] is port])
        for waiting in self.waiting.values():
            waiting[:] = [each for each in waiting if each[0] is not port]
        self._forget_unavailable(lambda one, _: one is port)
        self._interest.drop(port)

    # --- logs ---------------------------------------------------------------------------------
    def subscribe(self, port: Port, message: Subscribe) -> None:
        """Answer the head and start the stream, in this one turn (invariant "One seam")."""
        index = partition_of(message.log)
        if (port, index) not in self.attached:
            return
        if index in self._partitions.committing:
            # A thread is moving the head: answered as soon as it is committed.
            self.waiting.setdefault(index, []).append((port, message.log))
            return
        self._subscribe(index, port, message.log)

    def unsubscribe(self, port: Port, name: str) -> None:
        """A worker follows a log no more."""
        waiting = self.waiting.get(partition_of(name), [])
        waiting[:] = [each for each in waiting if each != (port, name)]
        self._until_available.get(partition_of(name), {}).pop((port, name), None)
        self._interest.remove(name, port)

    def committed(self, index: int) -> None:
        """A commit is over: answer what has waited for it."""
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
            # Whoever asks is answered now, and whoever still follows the log then, when it can be.
            self._partitions.failed(index, error)
            self._until_available.setdefault(index, {})[port, name] = None
            port.send(NotFollowed(name, int(ErrorCode.UNAVAILABLE), unavailable_text(error)))
            return
        self._interest.add(name, port)
        port.send(Subscribed(name, head.epoch, head.seq, state))


def _damaged(name: str) -> NotFollowed:
    return NotFollowed(name, int(ErrorCode.DAMAGED), "")


def _nothing() -> None:
    """There is no table."""
