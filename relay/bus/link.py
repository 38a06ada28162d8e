"""A stream to one other worker: priorities, limits, and one write per loop iteration.

Control messages (answers, heads, subscriptions, submissions) are sent before publishes (invariant
"The bus cannot deadlock"). Control messages are bounded by the requests (credits bound submissions,
and each request has one answer). Publishes beyond ``PUBLISH_BYTES_MAX`` are dropped and their logs
remembered, to be repaired through HEADS. Reading never stops: two workers that wait for each other
must not block each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol, cast

from relay.bus.messages import Batch, Event, Message
from relay.bus.packing import MessageReader, pack, pack_submits
from relay.chat.entries import Submission
from relay.errors import RemoteProtocolError
from relay.local_sockets import Credentials, credentials

PUBLISH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Publishes that wait for one link; beyond it they are dropped and repaired from the log."""
HIGH_WATER_BYTES: Final = 1024 * 1024
log = logging.getLogger("relay.bus")


class Port(Protocol):
    """Where messages for one worker go: a link, or the worker itself."""

    @property
    def index(self) -> int:
        """The worker's slot."""

    @property
    def generation(self) -> int:
        """The worker's generation: distinguishes the workers that had this slot."""

    def send(self, message: Message) -> None:
        """Send a control message: before all publishes, never dropped while the link is up."""

    def submit(self, tag: int, sends: list[Submission]) -> None:
        """Send one sender's messages to one log, as control. The tags are ``TAG_STEP`` apart."""

    def publish(self, message: Batch | Event) -> None:
        """Send a publish. Beyond the limit it is dropped, and its log's head is sent later."""


class LinkOwner(Protocol):
    """The user of the links: receives all events, in the loop's thread."""

    def link_up(self, link: Link) -> None:
        """The peer has introduced itself; messages can be sent."""

    def link_down(self, link: Link) -> None:
        """The link has ended, and what was on it is lost."""

    def received(self, port: Port, message: Message) -> None:
        """A message has arrived."""

    def heads_due(self, link: Link) -> None:
        """The link has room again after dropping publishes: send the heads of ``link.dropped``."""


class Link(asyncio.Protocol):
    """A link to another worker, created by ``mesh``. ``index`` is -1 until the peer is known."""

    __slots__ = (
        "_control", "_introduce", "_on_lost", "_owner", "_publishes", "_publishes_bytes",
        "_reader", "_transport", "_wake", "congested", "dropped", "generation",
        "index", "lost", "up",
    )  # fmt: skip

    def __init__(
        self,
        owner: LinkOwner,
        wake: Callable[[Link], None],
        introduce: Callable[[Link, Message], bool],
        on_lost: Callable[[Link], None],
    ) -> None:
        self._owner = owner
        self._wake = wake
        self._introduce = introduce
        self._on_lost = on_lost
        self._reader = MessageReader()
        self._transport: asyncio.Transport | None = None
        self._control: list[bytes] = []
        self._publishes: list[bytes] = []
        self._publishes_bytes = 0
        self.index = -1
        self.generation = 0
        self.up = False
        self.lost = False
        """True once the connection has ended, whether or not it was ever up."""
        self.congested = False
        """True while the transport is above its high-water mark."""
        self.dropped: dict[str, None] = {}
        """Logs of which a publish was dropped."""

    # --- asyncio.Protocol ---------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop does not register its class as a subclass
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Dispatch whole messages. An invalid one ends the link, which is then dialled again."""
        try:
            for message in self._reader.feed(data):
                if self.up:
                    self._owner.received(self, message)
                elif not self._introduce(self, message):
                    self.abort()
                    return
        except RemoteProtocolError:
            log.exception("bus_message_refused", extra={"worker": self.index})
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss, once."""
        was_up, self.up = self.up, False
        self.lost = True
        self._control.clear()
        self._publishes.clear()
        self._publishes_bytes = 0
        self._on_lost(self)
        if was_up:
            self._owner.link_down(self)

    def pause_writing(self) -> None:
        """Hold publishes back: they are bounded here, not in the transport."""
        self.congested = True

    def resume_writing(self) -> None:
        """Write again, and send the heads of logs with dropped publishes."""
        self.congested = False
        self._wake(self)

    # --- Port ---------------------------------------------------------------------------------
    def send(self, message: Message) -> None:
        """See ``Port``."""
        if self.lost:
            return
        self._control.append(pack(message))
        self._wake(self)

    def submit(self, tag: int, sends: list[Submission]) -> None:
        """See ``Port``."""
        if self.lost:
            return
        self._control += pack_submits(tag, sends)
        self._wake(self)

    def publish(self, message: Batch | Event) -> None:
        """See ``Port``."""
        if self.lost:
            return
        if message.log in self.dropped:
            return
        data = pack(message)
        if self._publishes_bytes + len(data) > PUBLISH_BYTES_MAX:
            self.dropped[message.log] = None
            return
        self._publishes.append(data)
        self._publishes_bytes += len(data)
        self._wake(self)

    # --- writing ------------------------------------------------------------------------------
    @property
    def idle(self) -> bool:
        """True when no publish waits here, so heads sent now do not overtake any."""
        return not self._publishes and not self.congested

    def flush(self) -> None:
        """Write what is queued in one write, control first. Called at the end of a turn."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        parts = self._control
        if not self.congested and self._publishes:
            assert self._publishes_bytes <= PUBLISH_BYTES_MAX, "publishes are dropped, not queued"
            parts = parts + self._publishes
            self._publishes.clear()
            self._publishes_bytes = 0
        if parts:
            transport.write(b"".join(parts))
        self._control.clear()
        if not self.congested and self.dropped:
            # After the publishes that were kept: heads must not overtake them.
            self._owner.heads_due(self)
            self.dropped.clear()

    def abort(self) -> None:
        """Drop the link at once."""
        if self._transport is not None:
            self._transport.abort()

    def peer(self) -> Credentials:
        """Return the credentials of the peer."""
        assert self._transport is not None
        return credentials(self._transport.get_extra_info("socket"))
