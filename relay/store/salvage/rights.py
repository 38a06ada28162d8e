"""Who has which rights in a salvaged log: the state of a room, or what is known of an account."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

import apsw

from relay.chat.entries import Entry
from relay.chat.names import INBOX_PREFIX, is_room
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.state import Room
from relay.errors import EnvelopeError
from relay.store.apply import STATE
from relay.store.file.schema import MEMBER, member_rows
from relay.store.salvage.remains import Known
from relay.store.state import SEQ_MASK, More
from relay.store.stub import LOST

_DAMAGED_STATE: Final = "INSERT INTO state VALUES (?, ?, 1, 0, ?)"


class SalvagedRights:
    """The rights in one log, by its control entries and what was stored of them."""

    def __init__(
        self, old: int, id: int, name: str, known: Known, lost: AbstractSet[int], more: More
    ) -> None:
        """Create without entries.

        Args:
            old: id of the log in the damaged file.
            id: its id in the new one.
            name: of the log.
            known: what the damaged file has in tables.
            lost: the entries that are lost, which the caller keeps up to date.
            more: gets the control entries that are lost.
        """
        self._old, self._id, self._name, self._known = old, id, name, known
        self._lost, self._more = lost, more
        self._listed = known.controls.get(old, set())
        """Control entries, by the table of these."""
        self.controls = set(self._listed)
        """The same, and those that a stored state names."""
        self.controls_kept: set[int] = set()
        """Those that can be read."""
        self._unknown_events = False
        self._room: Room | None = None
        """The room, by the entries that can be read."""
        self._stored = self._stored_room()

    def note(self, entry: Entry) -> None:
        """Note a control entry that can be read. In order."""
        self.controls_kept.add(entry.seq)
        if entry.content_type == events.CONTENT_TYPE:
            try:
                event = events.unpack(entry.body)
            except EnvelopeError:
                self._unknown_events = True
            else:
                self._room = rooms.applied(self._room or Room(), event, entry.sender, entry.seq)

    def add_named_controls(self, floor: int) -> None:
        """Note the control entries that a stored state names: the table may lack them."""
        named = {self._known.folds.get(self._old, (0,))[0]}  # or a message before: no matter
        stored = self._stored
        if stored is not None:
            named = {stored.version} | (set() if stored.deleted else {stored.created})
        self.controls |= {seq for seq in named if seq > floor}

    def write(self, target: apsw.Connection, head: int) -> bool:
        """Write who has which rights; return True if that is not known."""
        return (
            self._write_room(target, head)
            if is_room(self._name)
            else self._write_account(target, head)
        )

    def _stored_room(self) -> Room | None:
        """Return the stored state of a room; None: there is none that can be read."""
        packed = self._known.states.get(self._old)
        if packed is None or not is_room(self._name):
            return None
        try:
            return rooms.unpack(packed)
        except EnvelopeError:
            return None

    def _write_room(self, target: apsw.Connection, head: int) -> bool:
        lost = self._lost & self.controls
        self._more.controls += [(self._id, seq) for seq in sorted(lost)]
        stored, room = self._stored, self._room
        entries = (0, 0) if room is None else (room.created, room.version)
        incomplete = stored is not None and (
            stored.created > entries[0] or stored.version > entries[1]
        )
        if self._lost or self._unknown_events or incomplete:
            # The state is stored with each control entry, so the stored one is the latest, whether
            # or not the table of control entries has what is lost.
            last = max(self.controls_kept | lost, default=0)
            if stored is not None:
                room = stored if last <= stored.version <= head else None
            elif room is not None and not self._follows(room):
                room = None
            if room is None:
                target.execute(_DAMAGED_STATE, (self._id, head, LOST))
                return True
        if room is not None:  # who may read and write follows from its entries
            guarded, packed = int(not room.everybody_writes), rooms.pack(room)
            target.execute(STATE, (self._id, room.version, guarded, room.due_ms, packed))
            target.executemany(MEMBER, member_rows(self._id, room))
        return False

    def _follows(self, room: Room) -> bool:
        """Return True if a room is known from the entries that are left, without a stored state.

        The table may lack the entry that creates a room (``creations``), and in a file that was of
        format 2 the control entries before the first that it has.
        """
        if self._unknown_events or not room.created:
            return False
        later = {seq for seq in self._lost if seq > room.created}
        if not later:
            return True
        listed = self._tells_controls() and min(later) > min(self._listed, default=SEQ_MASK)
        return listed and not room.deleted and not later & self.controls

    def _write_account(self, target: apsw.Connection, head: int) -> bool:
        """Write what replaces lost entries of an account or an invitation.

        Returns:
            True if it cannot be known: a lost entry may have removed a device, or used up the
            invitation.
        """
        is_inbox = self._name.startswith(INBOX_PREFIX)  # an invitation has only control entries
        tells = is_inbox and self._tells_controls()
        lost = self._lost & self.controls if tells else self._lost
        # With these the account cannot be read, unless a later state of it was noted.
        self._more.controls += [(self._id, seq) for seq in sorted(lost)]
        seq, packed = self._known.folds.get(self._old, (0, b""))
        noted = bool(self._lost) and 0 < seq <= head and max(lost, default=0) <= seq
        if noted:
            target.execute("INSERT INTO fold VALUES (?, ?, ?)", (self._id, seq, packed))
        return bool(lost) and not noted

    def _tells_controls(self) -> bool:
        """Return True if the table tells which lost entries were control entries.

        It has to agree with everything that can be read.
        """
        agrees = self.controls_kept <= self._listed <= self.controls_kept | self._lost
        return agrees and self._known.all_controls
