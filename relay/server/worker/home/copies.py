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
from relay.store.errors import StoreError
from relay.wire.codes import ErrorCode

if TYPE_CHECKING:
    from relay.chat.entries import Entry
    from relay.store.log import Reader

WINDOW: Final = 32
"""Copies of one sender and one recipient that are on their way and not confirmed."""
RETRY_S: Final = 0.5
"""Until what a home could not take just now is sent again."""
log = logging.getLogger("relay.worker")


class _Lane:
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
        self._lanes: dict[tuple[str, str], _Lane] = {}

    @property
    def count(self) -> int:
        """How many are not confirmed."""
        return sum(len(lane.todo) + len(lane.flying) for lane in self._lanes.values())

    def accepted(self, inbox: str, peer: str, seq: int) -> None:
        """A message to somebody was committed to its sender's inbox."""
        lane = self._lanes.get((inbox, peer))
        if lane is None:
            lane = self._lanes[inbox, peer] = _Lane(inbox, peer)
        lane.todo.append(seq)
        self._send_next(lane)

    def resume(self, pending: list[tuple[str, int]]) -> None:
        """A partition was opened: send what is pending in it.

        Raises:
            StoreError: it cannot be read.
        """
        lanes: dict[tuple[str, str], list[int]] = {}
        for inbox, seq in pending:
            entry = self._read(inbox, seq)
            if entry is not None:
                lanes.setdefault((inbox, entry.to), []).append(seq)
            else:
                self._confirm(inbox, seq)
        for (inbox, peer), seqs in lanes.items():
            lane = self._lanes[inbox, peer] = _Lane(inbox, peer)
            lane.todo.extend(seqs)
            self._send_next(lane)

    def forget_others(self, owns: Callable[[int], bool]) -> None:
        """The table has changed: leave what others own to them."""
        for inbox, peer in list(self._lanes):
            if not owns(partition_of(inbox)):
                del self._lanes[inbox, peer]

    # --- answers --------------------------------------------------------------------------------
    def confirmed(self, copy: Submission) -> None:
        """The recipient's log has it."""
        lane = self._landed(copy)
        if lane is None:
            return
        extra = copy.extra
        assert extra is not None
        self._confirm(lane.inbox, extra.origin_seq)
        self._send_next(lane)

    def refused(self, copy: Submission, code: int) -> None:
        """The recipient's log does not have it yet."""
        lane = self._landed(copy)
        if lane is None:
            return
        extra = copy.extra
        assert extra is not None
        lane.back.append(extra.origin_seq)
        if code != ErrorCode.EXPECTED and not lane.retrying:
            if code not in (ErrorCode.UNAVAILABLE, ErrorCode.BUSY, ErrorCode.DAMAGED):
                log.error("direct_message_refused", extra={"log": copy.log, "code": code})
            lane.retrying = True
            self._later(RETRY_S, lambda: self._retry(lane))
        self._send_next(lane)

    def _landed(self, copy: Submission) -> _Lane | None:
        extra = copy.extra
        assert extra is not None
        inbox = INBOX_PREFIX + copy.sender
        lane = self._lanes.get((inbox, extra.to))
        if lane is None or extra.origin_seq not in lane.flying:
            return None  # of a partition that was given away meanwhile
        del lane.flying[extra.origin_seq]
        return lane

    def _retry(self, lane: _Lane) -> None:
        lane.retrying = False
        if self._lanes.get((lane.inbox, lane.peer)) is lane:
            self._send_next(lane)

    # --- sending --------------------------------------------------------------------------------
    def _send_next(self, lane: _Lane) -> None:
        if lane.back:
            if lane.flying or lane.retrying:
                return
            lane.todo.extendleft(sorted(lane.back, reverse=True))
            lane.back.clear()
        while lane.todo and len(lane.flying) < WINDOW and not lane.back:
            seq = lane.todo[0]
            try:
                copy = self._copy(lane, seq)
            except StoreError as error:
                log.error("inbox_unreadable", extra={"log": lane.inbox, "reason": str(error)})
                if not lane.retrying:
                    lane.retrying = True
                    self._later(RETRY_S, lambda: self._retry(lane))
                return
            lane.todo.popleft()
            if copy is None:
                self._confirm(lane.inbox, seq)  # it is not held any more
                continue
            lane.flying[seq] = None
            self._send(copy)
        if not lane.todo and not lane.flying and not lane.back:
            self._lanes.pop((lane.inbox, lane.peer), None)

    def _copy(self, lane: _Lane, seq: int) -> Submission | None:
        entry = self._read(lane.inbox, seq)
        if entry is None:
            return None
        about, about_in = self._about(lane, entry)
        return Submission(
            log=INBOX_PREFIX + lane.peer,
            sender=entry.sender,
            key_id=entry.key_id,
            producer=copy_producer(lane.inbox, entry.epoch),
            counter=seq,
            kind=entry.kind,
            content_type=entry.content_type,
            body=entry.body,
            extra=Extra(
                to=lane.peer,
                about_epoch=about[0],
                about_seq=about[1],
                verdict=0,
                origin_epoch=entry.epoch,
                origin_seq=seq,
                origin_after=next(reversed(lane.flying), 0),
                about_in=about_in,
            ),
        )

    def _about(self, lane: _Lane, entry: Entry) -> tuple[tuple[bytes, int], str]:
        """Return (place, in whose inbox) of what an entry is about, as the recipient can tell."""
        if not entry.about_seq:
            return (b"", 0), ""
        place = self._reader_of(lane.inbox).place_at(lane.inbox, lane.peer, entry.about_seq)
        if place is not None:  # a copy of what the recipient has written
            return (place.epoch, place.seq), ""
        return (entry.about_epoch, entry.about_seq), lane.inbox[len(INBOX_PREFIX) :]

    def _read(self, inbox: str, seq: int) -> Entry | None:
        page = self._reader_of(inbox).read(inbox, seq - 1, seq, limits.PAGE_BYTES_MAX, 1)
        return self._unpack(page.rows[0][1]) if page.rows else None
