"""The two queues between a worker and its own home, emptied by the turn.

Logs whose home is here and logs whose home is elsewhere take the same path: messages through a
port. No answer arrives inside the caller.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from relay.bus.messages import TAG_STEP
from relay.server.worker.home.submissions import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.bus.link import Port
    from relay.bus.messages import Batch, Event, Message
    from relay.chat.entries import Submission
    from relay.server.worker.home.parts import HomeParts
    from relay.server.worker.member.presence import PresenceReports
    from relay.server.worker.wakeup import Wakeup

    Handlers = Mapping[type, Callable[[Port, Any], None]]

HOME_SLICE_S: Final = 0.002
"""How long requests to the own home that need no commit may follow one another in one turn."""


class LocalPort:
    """One direction: a queue that the turn empties. The first message requests the turn."""

    __slots__ = ("_wakeup", "answers", "generation", "index", "queue", "submits")

    def __init__(self, index: int, generation: int, wakeup: Wakeup) -> None:
        self.answers = self
        """The other direction."""
        self.index = index
        self.generation = generation
        self._wakeup = wakeup
        self.queue: deque[Message | list[Waiting]] = deque()
        """A list stands for a SUBMIT that is not packed."""
        self.submits = 0
        """The number of lists in the queue: they need a commit."""

    def send(self, message: Message) -> None:
        """See ``Port``."""
        self.queue.append(message)
        if not self._wakeup.scheduled:
            self._wakeup.request()

    def submit(self, tag: int, sends: list[Submission]) -> None:
        """See ``Port``."""
        answers = self.answers
        run: list[Waiting] = []
        for submission in sends:
            run.append(Waiting(answers, tag, submission))
            tag += TAG_STEP
        self.queue.append(run)
        self.submits += 1
        if not self._wakeup.scheduled:
            self._wakeup.request()

    def publish(self, message: Batch | Event) -> None:
        """See ``Port``."""
        self.queue.append(message)
        if not self._wakeup.scheduled:
            self._wakeup.request()


class OwnHome:
    """Both directions."""

    def __init__(self, index: int, generation: int, wakeup: Wakeup) -> None:
        self.to_home = LocalPort(index, generation, wakeup)
        """From this worker, as a member, to its own home."""
        self.to_member = LocalPort(index, generation, wakeup)
        """From the home here to this worker."""
        self.to_home.answers, self.to_member.answers = self.to_member, self.to_home


class OwnHomeStep:
    """Step 2 of the turn: everything that this worker and its own home have for each other."""

    def __init__(
        self,
        own_home: OwnHome,
        handlers: Handlers,
        home: HomeParts,
        presence: PresenceReports,
        clock: Callable[[], float],
    ) -> None:
        self.to_home = own_home.to_home
        self._to_member = own_home.to_member
        self._handlers = handlers
        self._queues = home.queues
        self._writer = home.writer
        self._to_commit = home.queues.waiting
        self._committing = home.partitions.committing
        self._permissions = home.permissions
        self._interest = home.interest
        self._rosters = home.rosters
        self._presence = presence
        self._clock = clock

    def run(self, now: float, heavy_paused: bool) -> None:
        """Handle requests, commit, answer, publish; again while that caused quick requests."""
        to_home, to_member = self.to_home, self._to_member
        rosters, presence = self._rosters, self._presence
        permissions, writer = self._permissions, self._writer
        deadline = now + HOME_SLICE_S
        while True:
            if to_home.queue:
                self._deliver_to_home()
            if permissions.waiting:
                permissions.ask_light(heavy_paused=heavy_paused)
            permissions.decided = False
            if self._to_commit or self._committing or writer.more or writer.remaining:
                writer.commit(heavy_paused=heavy_paused)
            if presence.to_report:
                presence.send()
            if rosters.changed or now >= rosters.due_at:
                for event in rosters.changes():
                    self._interest.publish(event)
            if to_member.queue:
                self._deliver_to_member()
            more = bool(to_home.queue) or permissions.decided
            if not more or to_home.submits or self._clock() >= deadline:
                return

    def _deliver_to_home(self) -> None:
        """Pass queued messages to the home. Its answers wait for ``_deliver_to_member``."""
        queue, answers = self.to_home.queue, self._to_member
        while queue:
            message = queue.popleft()
            if type(message) is list:
                self.to_home.submits -= 1
                self._queues.submit(message)
            else:
                self._handlers[type(message)](answers, message)

    def _deliver_to_member(self) -> None:
        """Pass the messages of its own home to this worker."""
        queue, answers = self._to_member.queue, self.to_home
        while queue:
            message = queue.popleft()
            assert type(message) is not list, "a home submits nothing to members"
            self._handlers[type(message)](answers, message)
