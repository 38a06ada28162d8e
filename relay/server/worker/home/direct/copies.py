"""Copies direct messages from the inboxes of their senders to those of their recipients.

A message is accepted by the commit to its sender's inbox, which marks it as *pending* there. From
then on this home sends a copy to the recipient's home until that has confirmed it, even if either
home dies meanwhile: pending messages are read when a partition is opened. The recipient's log
identifies a copy by its position in the sender's inbox. It accepts each copy once, and only after
the copies it must follow.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from relay import limits
from relay.chat.entries import Extra, Submission
from relay.chat.ids import copy_producer
from relay.chat.names import INBOX_PREFIX
from relay.chat.partition import partition_of
from relay.store.errors import LogDamaged, StoreCorrupt, StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.server.worker.damaged_logs import DamagedLogs
    from relay.store.log import Reader

WINDOW: Final = 32
"""Unconfirmed copies between one sender and one recipient."""
RESUMED_PER_STEP: Final = 8
"""Flows to resume per iteration of the loop after a partition was opened: ``WINDOW`` entries of
each are read."""
RETRY_S: Final = 0.5
"""Delay before resending a copy that a home could not accept."""
DAMAGED_RETRY_S: Final = 30.0
"""An entry that cannot be read will not be repaired soon."""
log = logging.getLogger("relay.worker")


class _Flow:
    """The messages from one inbox to another."""

    __slots__ = ("in_flight", "inbox", "peer", "queued", "refused", "retrying")

    def __init__(self, inbox: str, peer: str) -> None:
        self.inbox = inbox
        self.peer = peer
        self.queued: deque[int] = deque()
        """Seqs in the inbox, in order; an entry is read when it is sent."""
        self.in_flight: dict[int, None] = {}
        """Seqs that were sent and not answered yet."""
        self.refused: list[int] = []
        """Seqs to resend, in order, once nothing is in flight."""
        self.retrying = False


class Copies:
    """The copies of all senders whose home is this worker."""

    def __init__(
        self,
        *,
        send: Callable[[Submission], None],
        reader_of: Callable[[str], Reader],
        unpack: Callable[[bytes], Entry],
        confirm: Callable[[str, int], None],
        later: Callable[[float, Callable[[], None]], object],
        damaged: DamagedLogs,
    ) -> None:
        """Create without copies.

        Args:
            send: delivers a submission to the home of its log, across changes of that home; the
                answer arrives at ``confirmed`` or ``refused``.
            reader_of: reads a log.
            unpack: returns a packed entry.
            confirm: records that the entry at this position of this inbox is no longer pending.
            later: schedules a call after a number of seconds.
            damaged: reports inboxes that cannot be read.
        """
        self._send = send
        self._reader_of = reader_of
        self._unpack = unpack
        self._confirm = confirm
        self._later = later
        self._damaged = damaged
        self._flows: dict[tuple[str, str], _Flow] = {}
        self._resumed: deque[_Flow] = deque()
        """Flows of opened partitions of which nothing was sent yet."""

    @property
    def count(self) -> int:
        """Number of unconfirmed copies."""
        return sum(len(flow.queued) + len(flow.in_flight) for flow in self._flows.values())

    def accepted(self, inbox: str, peer: str, seq: int) -> None:
        """Queue a direct message that was committed to its sender's inbox."""
        flow = self._flows.get((inbox, peer))
        if flow is None:
            flow = self._flows[inbox, peer] = _Flow(inbox, peer)
        flow.queued.append(seq)
        self._send_next(flow)

    def resume(self, pending: list[tuple[str, int, str]]) -> None:
        """Send what is pending in a partition that was opened: some of it now and the rest later.

        Args:
            pending: see ``log.Partition``.

        Raises:
            StoreError: it cannot be read.
        """
        flows: dict[tuple[str, str], _Flow] = {}
        for inbox, seq, known in pending:
            peer = known
            if not peer:
                try:
                    entry = self._read(inbox, seq)
                except (LogDamaged, StoreCorrupt) as error:
                    # Whose it is, is not known. It stays pending: the next home looks again.
                    self._damaged.report(inbox, error, inbox=True)
                    continue
                if entry is None:
                    self._confirm(inbox, seq)
                    continue
                peer = entry.to
            flow = flows.get((inbox, peer))
            if flow is None:
                flow = flows[inbox, peer] = _Flow(inbox, peer)
            flow.queued.append(seq)
        self._flows.update(flows)
        if flows:
            # Only once all of them are recorded and the partition is open.
            if not self._resumed:
                self._later(0.0, self._begin_some)
            self._resumed.extend(flows.values())

    def _begin_some(self) -> None:
        """Start a few of the resumed flows, and yield to the loop."""
        some = [self._resumed.popleft() for _ in range(min(RESUMED_PER_STEP, len(self._resumed)))]
        if self._resumed:
            self._later(0.0, self._begin_some)
        for flow in some:
            if self._flows.get((flow.inbox, flow.peer)) is flow:
                self._send_next(flow)

    def forget_others(self, has: Callable[[int], bool]) -> None:
        """Drop the flows of partitions that this worker no longer owns."""
        for inbox, peer in list(self._flows):
            if not has(partition_of(inbox)):
                del self._flows[inbox, peer]

    # --- answers --------------------------------------------------------------------------------
    def confirmed(self, copy: Submission) -> None:
        """The recipient's log has the copy."""
        flow = self._landed(copy)
        if flow is None:
            return
        extra = copy.extra
        assert extra is not None
        self._confirm(flow.inbox, extra.origin_seq)
        self._send_next(flow)

    def refused(self, copy: Submission, code: int) -> None:
        """The recipient's log does not have the copy yet."""
        flow = self._landed(copy)
        if flow is None:
            return
        extra = copy.extra
        assert extra is not None
        flow.refused.append(extra.origin_seq)
        if code != ErrorCode.EXPECTED and not flow.retrying:
            if code not in (ErrorCode.UNAVAILABLE, ErrorCode.BUSY, ErrorCode.DAMAGED):
                log.error("direct_message_refused", extra={"log": copy.log, "code": code})
            flow.retrying = True
            self._later(RETRY_S, lambda: self._retry(flow))
        self._send_next(flow)

    def _landed(self, copy: Submission) -> _Flow | None:
        extra = copy.extra
        assert extra is not None
        inbox = INBOX_PREFIX + copy.sender
        flow = self._flows.get((inbox, extra.to))
        if flow is None or extra.origin_seq not in flow.in_flight:
            return None  # of a partition that was given away meanwhile
        del flow.in_flight[extra.origin_seq]
        return flow

    def _retry(self, flow: _Flow) -> None:
        flow.retrying = False
        if self._flows.get((flow.inbox, flow.peer)) is flow:
            self._send_next(flow)

    # --- sending --------------------------------------------------------------------------------
    def _send_next(self, flow: _Flow) -> None:
        if flow.refused:
            if flow.in_flight or flow.retrying:
                return
            flow.queued.extendleft(sorted(flow.refused, reverse=True))
            flow.refused.clear()
        while flow.queued and len(flow.in_flight) < WINDOW and not flow.refused:
            seq = flow.queued[0]
            try:
                copy = self._copy(flow, seq)
            except StoreError as error:
                self._damaged.report(flow.inbox, error, inbox=True)
                if not flow.retrying:
                    flow.retrying = True
                    damaged = isinstance(error, StoreCorrupt | LogDamaged)
                    wait_s = DAMAGED_RETRY_S if damaged else RETRY_S
                    self._later(wait_s, lambda: self._retry(flow))
                return
            flow.queued.popleft()
            if copy is None:
                self._confirm(flow.inbox, seq)  # it is no longer stored
                continue
            flow.in_flight[seq] = None
            self._send(copy)
        if not flow.queued and not flow.in_flight and not flow.refused:
            self._flows.pop((flow.inbox, flow.peer), None)

    def _copy(self, flow: _Flow, seq: int) -> Submission | None:
        entry = self._read(flow.inbox, seq)
        if entry is None:
            return None
        about, about_in = self._about(flow, entry)
        return Submission(
            log=INBOX_PREFIX + flow.peer,
            sender=entry.sender,
            key_id=entry.key_id,
            producer=copy_producer(flow.inbox, entry.epoch),
            counter=seq,
            kind=entry.kind,
            content_type=entry.content_type,
            body=entry.body,
            extra=Extra(
                to=flow.peer,
                about_epoch=about[0],
                about_seq=about[1],
                verdict=0,
                origin_epoch=entry.epoch,
                origin_seq=seq,
                origin_after=next(reversed(flow.in_flight), 0),
                about_in=about_in,
            ),
        )

    def _about(self, flow: _Flow, entry: Entry) -> tuple[tuple[bytes, int], str]:
        """Return the position of an entry's target and whose inbox it is in, for the recipient."""
        if not entry.about_seq:
            return (b"", 0), ""
        place = self._reader_of(flow.inbox).place_at(flow.inbox, flow.peer, entry.about_seq)
        if place is not None:  # a copy of what the recipient has written
            return (place.epoch, place.seq), ""
        return (entry.about_epoch, entry.about_seq), flow.inbox[len(INBOX_PREFIX) :]

    def _read(self, inbox: str, seq: int) -> Entry | None:
        page = self._reader_of(inbox).read(inbox, seq - 1, seq, limits.PAGE_BYTES_MAX, 1)
        try:
            return self._unpack(page.rows[0][1]) if page.rows else None
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
            raise LogDamaged(inbox, f"entry {seq} cannot be read") from None
