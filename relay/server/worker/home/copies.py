"""Direct messages on their way from the inboxes of their senders to those of their recipients.

A message is accepted by the commit to its sender's inbox, which leaves it *pending* there. From
then on this home sends a copy to the recipient's home until that has confirmed it, across the death
of either: what is pending is read when a partition is opened. The recipient's log knows a copy by
its place in the sender's inbox: it takes each once, and none before those that it must follow.
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
from relay.store.errors import StoreCorrupt, StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.store.log import Reader

WINDOW: Final = 32
"""Copies of one sender and one recipient that are on their way and not confirmed."""
RESUMED_PER_STEP: Final = 8
"""Pairs of inboxes whose copies are begun in one turn of the loop, after a partition was opened:
``WINDOW`` entries of each are read."""
RETRY_S: Final = 0.5
"""Until what a home could not take just now is sent again."""
DAMAGED_RETRY_S: Final = 30.0
"""An entry that cannot be read is not soon mended, and each try is an error in the log."""
log = logging.getLogger("relay.worker")


class _Flow:
    """What one inbox has for another one."""

    __slots__ = ("back", "flying", "inbox", "peer", "retrying", "todo")

    def __init__(self, inbox: str, peer: str) -> None:
        self.inbox = inbox
        self.peer = peer
        self.todo: deque[int] = deque()
        """Places in the inbox, in order; nothing is read of them before it is their turn."""
        self.flying: dict[int, None] = {}
        """Likewise, sent and not answered."""
        self.back: list[int] = []
        """Those of them that were refused: sent again, in order, when nothing is flying."""
        self.retrying = False


class Copies:
    """All of them whose sender's home is here."""

    def __init__(
        self,
        *,
        send: Callable[[Submission], None],
        reader_of: Callable[[str], Reader],
        unpack: Callable[[bytes], Entry],
        confirm: Callable[[str, int], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Begin with none.

        Args:
            send: brings a submission to the home of its log, through whatever happens to that; the
                answer comes to ``confirmed`` or ``refused``.
            reader_of: reads a log.
            unpack: returns a packed entry.
            confirm: notes that what is at this place of this inbox is pending no more.
            later: has something called after so many seconds.
        """
        self._send = send
        self._reader_of = reader_of
        self._unpack = unpack
        self._confirm = confirm
        self._later = later
        self._flows: dict[tuple[str, str], _Flow] = {}
        self._resumed: deque[_Flow] = deque()
        """Those of opened partitions that nothing was sent of yet."""

    @property
    def count(self) -> int:
        """How many are not confirmed."""
        return sum(len(flow.todo) + len(flow.flying) for flow in self._flows.values())

    def accepted(self, inbox: str, peer: str, seq: int) -> None:
        """A message to somebody was committed to its sender's inbox."""
        flow = self._flows.get((inbox, peer))
        if flow is None:
            flow = self._flows[inbox, peer] = _Flow(inbox, peer)
        flow.todo.append(seq)
        self._send_next(flow)

    def resume(self, pending: list[tuple[str, int, str]]) -> None:
        """A partition was opened: send what is pending in it, some of it now and the rest later.

        Args:
            pending: see ``log.Partition``.

        Raises:
            StoreError: it cannot be read.
        """
        flows: dict[tuple[str, str], _Flow] = {}
        for inbox, seq, known in pending:
            peer = known
            if not peer:
                entry = self._read(inbox, seq)
                if entry is None:
                    self._confirm(inbox, seq)
                    continue
                peer = entry.to
            flow = flows.get((inbox, peer))
            if flow is None:
                flow = flows[inbox, peer] = _Flow(inbox, peer)
            flow.todo.append(seq)
        self._flows.update(flows)
        if flows:
            # Not before all of it is noted, and opening the partition is over.
            if not self._resumed:
                self._later(0.0, self._begin_some)
            self._resumed.extend(flows.values())

    def _begin_some(self) -> None:
        """Send what a few of the resumed flows have; all others of the loop have their turn."""
        some = [self._resumed.popleft() for _ in range(min(RESUMED_PER_STEP, len(self._resumed)))]
        if self._resumed:
            self._later(0.0, self._begin_some)
        for flow in some:
            if self._flows.get((flow.inbox, flow.peer)) is flow:
                self._send_next(flow)

    def forget_others(self, has: Callable[[int], bool]) -> None:
        """Leave what others own to them: all but the partitions that this worker still has."""
        for inbox, peer in list(self._flows):
            if not has(partition_of(inbox)):
                del self._flows[inbox, peer]

    # --- answers --------------------------------------------------------------------------------
    def confirmed(self, copy: Submission) -> None:
        """The recipient's log has it."""
        flow = self._landed(copy)
        if flow is None:
            return
        extra = copy.extra
        assert extra is not None
        self._confirm(flow.inbox, extra.origin_seq)
        self._send_next(flow)

    def refused(self, copy: Submission, code: int) -> None:
        """The recipient's log does not have it yet."""
        flow = self._landed(copy)
        if flow is None:
            return
        extra = copy.extra
        assert extra is not None
        flow.back.append(extra.origin_seq)
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
        if flow is None or extra.origin_seq not in flow.flying:
            return None  # of a partition that was given away meanwhile
        del flow.flying[extra.origin_seq]
        return flow

    def _retry(self, flow: _Flow) -> None:
        flow.retrying = False
        if self._flows.get((flow.inbox, flow.peer)) is flow:
            self._send_next(flow)

    # --- sending --------------------------------------------------------------------------------
    def _send_next(self, flow: _Flow) -> None:
        if flow.back:
            if flow.flying or flow.retrying:
                return
            flow.todo.extendleft(sorted(flow.back, reverse=True))
            flow.back.clear()
        while flow.todo and len(flow.flying) < WINDOW and not flow.back:
            seq = flow.todo[0]
            try:
                copy = self._copy(flow, seq)
            except StoreError as error:
                log.error("inbox_unreadable", extra={"log": flow.inbox, "reason": str(error)})
                if not flow.retrying:
                    flow.retrying = True
                    damaged = isinstance(error, StoreCorrupt)
                    wait_s = DAMAGED_RETRY_S if damaged else RETRY_S
                    self._later(wait_s, lambda: self._retry(flow))
                return
            flow.todo.popleft()
            if copy is None:
                self._confirm(flow.inbox, seq)  # it is not held any more
                continue
            flow.flying[seq] = None
            self._send(copy)
        if not flow.todo and not flow.flying and not flow.back:
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
                origin_after=next(reversed(flow.flying), 0),
                about_in=about_in,
            ),
        )

    def _about(self, flow: _Flow, entry: Entry) -> tuple[tuple[bytes, int], str]:
        """Return (place, in whose inbox) of what an entry is about, as the recipient can tell."""
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
        except Exception:  # noqa: BLE001 - whatever it is, the entry is the reason
            raise StoreCorrupt(f"entry {seq} of log {inbox} cannot be read") from None
