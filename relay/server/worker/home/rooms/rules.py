"""The rights in rooms as rules for the store: who may append, and what control entries mean."""

from __future__ import annotations

from typing import Final

from relay.chat import names
from relay.chat.entries import Entry, Submission
from relay.chat.entries import Kind as EntryKind
from relay.chat.relations import is_former, is_own
from relay.chat.rooms import events
from relay.chat.rooms import state as rooms
from relay.chat.rooms.decide import may_begin
from relay.chat.rooms.events import Kind
from relay.chat.rooms.refusal import Reason, Refused, not_this_room
from relay.chat.rooms.rights import (
    Actor,
    Right,
    disclosure_refusal,
    redaction_refusal,
    refusal,
)
from relay.chat.rooms.state import Room
from relay.server.worker.home.rooms.entries import entry_of, place
from relay.server.worker.home.rooms.unpacked import UnpackedRooms
from relay.store.log import Denied
from relay.store.rules import Kept, Rules
from relay.store.state import LogEnd

REDACTION: Final = int(EntryKind.REDACTION)


class RoomRules(Rules):
    """The rules for rooms. Other logs have none."""

    def __init__(self, *, anyone_creates: bool) -> None:
        """Create. ``anyone_creates``: False if only operators create rooms."""
        self.anyone_creates = anyone_creates
        self.unpacked = UnpackedRooms()
        """The states of rooms."""

    def before(
        self, log: LogEnd, submission: Submission, target: Entry | None
    ) -> Submission | Denied | None:
        """See ``Rules``."""
        if not names.is_room(submission.log):
            return None
        actor = Actor(submission.sender, submission.root, submission.operator)
        room = self._room(submission.log, log)
        if target is not None and target.seq <= room.floor:
            # the target belongs to an earlier room of this name
            return Denied(Refused(Reason.NO_SUCH_ENTRY))
        if log.id == 0:
            refused = may_begin(actor, anyone_creates=self.anyone_creates)
            if refused is not None:
                return Denied(refused)
            created = events.Created(Kind.PUBLIC, True, actor.root)
            return entry_of(submission.log, room.version, created, actor.handle, submission.key_id)
        if target is not None and submission.kind == REDACTION:
            own = is_own(target, submission)
            # A former owner of the name has no role.
            author = "" if is_former(submission) else target.sender
            refused = redaction_refusal(room, actor, author, own=own)
        else:
            refused = refusal(room, actor, Right.WRITE)
        return None if refused is None else Denied(refused)

    def began(self, log: LogEnd, submission: Submission) -> int:
        """See ``Rules``."""
        return self._room(submission.log, log).created

    def gone(self) -> Denied:
        """See ``Rules``."""
        return Denied(not_this_room())

    def hidden(self, log: LogEnd, submission: Submission) -> Denied | None:
        """See ``Rules``."""
        if log.id == 0 or not names.is_room(submission.log):
            return None
        actor = Actor(submission.sender, submission.root, submission.operator)
        refused = disclosure_refusal(self._room(submission.log, log), actor)
        return None if refused is None else Denied(refused)

    def after(self, log: LogEnd, submission: Submission) -> Kept | Denied | None:
        """See ``Rules``."""
        if submission.content_type != events.CONTENT_TYPE:
            return None
        room = self._room(submission.log, log)
        if submission.producer != place(submission.log, room.version):
            return Denied(Refused(Reason.CHANGED))  # decided on a state that is not the last one
        event = events.unpack(submission.body)
        after = rooms.applied(room, event, submission.sender, log.seq + 1)
        begins = isinstance(event, events.Created) and log.id != 0
        guarded = not after.everybody_writes
        roles = rooms.role_changes(room, after)
        packed = rooms.pack(after)
        self.unpacked.note(submission.log, packed, after)  # whether it is committed or not
        return Kept(packed, after, guarded, after.due_ms, begins, roles)

    def _room(self, name: str, log: LogEnd) -> Room:
        found = log.state
        if not isinstance(found, Room):
            found = log.state = self.unpacked.of(name, log.packed_state)
        return found
