"""Where bus messages meet the worker: each message to the one function that takes it.

The worker talks to itself through ``Loopback``, a port like any other, so that a log whose home is
here and one whose home is elsewhere take the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.bus.link import Link, Port
from relay.bus.messages import (
    Acks,
    Announced,
    Attach,
    Batch,
    Claim,
    Claimed,
    Event,
    Evict,
    Heads,
    Members,
    Message,
    NotHome,
    Presence,
    Refused,
    Release,
    Submit,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Who,
)
from relay.chat.entries import Submission
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of

if TYPE_CHECKING:
    from relay.server.worker.hub import Hub


class Loopback:
    """The port from a worker to itself: messages are not packed and arrive at once."""

    __slots__ = ("exchange", "generation", "index")

    exchange: Exchange
    """Where they arrive; set before anything is sent."""

    def __init__(self, index: int, generation: int) -> None:
        self.index = index
        self.generation = generation

    def send(self, message: Message) -> None:
        """See ``Port``."""
        self.exchange.received(self, message)

    def submit(self, tag: int, submission: Submission) -> None:
        """See ``Port``."""
        self.exchange.submit(self, tag, submission)

    def publish(self, message: Batch | Event) -> None:
        """See ``Port``."""
        self.exchange.received(self, message)


class Exchange:
    """Dispatches what ports bring; implements ``LinkOwner``."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._attached: set[tuple[Port, int]] = set()
        """Who may speak of which partition to this home: see ``bus.messages.Attach``."""
        # The values take the message type of their key; a dict cannot say that.
        self._as_home: Final[dict[type, Callable[[Port, Any], None]]] = {
            Attach: self._attach,
            Submit: lambda port, m: self.submit(port, m.tag, m.submission),
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            Presence: self._presence,
            Who: self._who,
            Claim: self._claim,
            Release: hub.namebook.release,
            Announced: lambda port, _: hub.namebook.announced(port),
        }
        self._as_member: Final[dict[type, Callable[[Port, Any], None]]] = {
            Acks: lambda _, message: hub.forward.acknowledged(message),
            Refused: lambda _, message: hub.forward.refused(message),
            Batch: lambda _, message: hub.fanout.receive(message),
            Event: lambda _, message: hub.fanout.announce(message),
            Subscribed: lambda port, m: self._head_said(port, m.log, m.epoch, m.seq),
            Heads: self._heads,
            Claimed: lambda _, message: hub.logins.answered(message),
            Evict: lambda _, message: hub.logins.evicted(message),
            Members: lambda _, message: hub.members_said(message),
            NotHome: lambda port, message: hub.routes.lost(message.partition, port),
        }
        self._all: Final = self._as_home | self._as_member

    # --- LinkOwner ----------------------------------------------------------------------------
    def received(self, port: Port, message: Message) -> None:
        """Dispatch one message."""
        take = self._all.get(type(message))
        if take is not None:
            take(port, message)
            self._hub.wake()

    def link_up(self, link: Link) -> None:
        """Attach what has its home there, and say that it is said."""
        self._hub.routes.refresh()
        link.send(Announced(self._hub.loopback.generation))

    def link_down(self, link: Link) -> None:
        """Forget the other worker's part of everything."""
        hub = self._hub
        self._attached = {attached for attached in self._attached if attached[0] is not link}
        hub.home.drop(link)
        hub.rosters.drop(link)
        hub.namebook.drop(link)
        hub.routes.refresh()
        hub.wake()

    def heads_due(self, link: Link) -> None:
        """The link has room again: say the heads of what was dropped (rule 7)."""
        self._hub.interest.say(link, link.dropped, self._hub.home.heads)

    # --- as the home of a log -----------------------------------------------------------------
    def _is_home(self, port: Port, log: str) -> bool:
        partition = partition_of(log)
        # Otherwise it was said before its worker learns of NOT_HOME, and will be said again.
        return (port, partition) in self._attached

    def refuse_others(self) -> None:
        """The table has changed: this is not the home any more of what others own."""
        for port, partition in list(self._attached):
            if not self._hub.routes.owns(partition):
                self.refuse(port, partition)

    def refuse(self, port: Port, partition: int) -> None:
        """Say that this is not the home of a partition, or cannot be it now."""
        self._attached.discard((port, partition))
        port.send(NotHome(partition))

    def _attach(self, port: Port, message: Attach) -> None:
        hub, partition = self._hub, message.partition
        hub.home.forget(port, partition)
        hub.rosters.forget(port, partition)
        hub.namebook.doubt(port, partition)
        if hub.routes.owns(partition):
            self._attached.add((port, partition))
        else:
            port.send(NotHome(partition))

    def submit(self, port: Port, tag: int, submission: Submission) -> None:
        """Take a send for its log's home."""
        if self._is_home(port, submission.log):
            self._hub.home.submit(port, tag, submission)
            self._hub.wake()

    def _subscribe(self, port: Port, message: Subscribe) -> None:
        if self._is_home(port, message.log):
            self._hub.home.subscribe(port, message)

    def _unsubscribe(self, port: Port, message: Unsubscribe) -> None:
        self._hub.home.unsubscribe(port, message.log)
        self._hub.rosters.leave(message.log, port)

    def _presence(self, port: Port, message: Presence) -> None:
        if self._is_home(port, message.log):
            self._hub.rosters.change(port, message)

    def _who(self, port: Port, message: Who) -> None:
        if self._is_home(port, message.log):
            port.send(self._hub.rosters.members(message))

    def _claim(self, port: Port, message: Claim) -> None:
        if self._is_home(port, INBOX_PREFIX + message.name):
            self._hub.namebook.claim(port, message)

    # --- as a member's worker -----------------------------------------------------------------
    def _head_said(self, port: Port, log: str, epoch: bytes, seq: int) -> None:
        if self._hub.routes.is_home(partition_of(log), port):
            self._hub.head_said(log, epoch, seq)

    def _heads(self, port: Port, message: Heads) -> None:
        for log, epoch, seq in message.heads:
            assert isinstance(log, str)
            assert isinstance(epoch, bytes)
            assert isinstance(seq, int)
            self._head_said(port, log, epoch, seq)
