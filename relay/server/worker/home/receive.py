"""Dispatches messages from members to the parts of a home.

A home accepts messages about a partition from a worker only between ATTACH and NOT_HOME: see
``bus.messages.Attach``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from relay.bus.messages import (
    TAG_STEP,
    Announced,
    Ask,
    Attach,
    Claim,
    Damaged,
    Presence,
    Release,
    Revoked,
    Submit,
    Subscribe,
    Unsubscribe,
    Who,
)
from relay.chat.entries import Submission
from relay.chat.names import INBOX_PREFIX, is_room
from relay.server.worker.home.submissions import Waiting

if TYPE_CHECKING:
    from relay.bus.link import Port
    from relay.server.worker.home.accounts.names import NameRegistry
    from relay.server.worker.home.accounts.requests import AccountsHome
    from relay.server.worker.home.accounts.revocations import Revocations
    from relay.server.worker.home.committing.submission_queues import SubmissionQueues
    from relay.server.worker.home.followers.attached_workers import Followers
    from relay.server.worker.home.followers.rosters import Rosters
    from relay.server.worker.home.rooms.requests import RoomsHome

_new: Final = tuple.__new__
"""Creates a NamedTuple without the Python call of its own ``__new__``."""


class FromMembers:
    """Handles messages from workers with members, including this worker itself."""

    def __init__(
        self,
        queues: SubmissionQueues,
        followers: Followers,
        rosters: Rosters,
        names: NameRegistry,
        accounts: AccountsHome,
        rooms: RoomsHome,
        revocations: Revocations,
    ) -> None:
        self._queues = queues
        self._followers = followers
        self._rooms = rooms
        self._accounts = accounts
        self._rosters = rosters
        self._names = names
        # The values take the message type of their key; a dict's type cannot express that.
        self.handlers: Final[dict[type, Callable[[Port, Any], None]]] = {
            Attach: self._attach,
            Submit: self._submit,
            Subscribe: followers.subscribe,
            Unsubscribe: self._unsubscribe,
            Presence: self._presence,
            Who: self._who,
            Claim: self._claim,
            Release: names.release,
            Announced: lambda port, _: names.announced(port),
            Ask: self._ask,
            Revoked: revocations.confirmed,
            Damaged: followers.damaged,
        }

    def drop(self, port: Port) -> None:
        """A worker has died: remove it from every part."""
        self._followers.drop(port)
        self._rosters.drop(port)
        self._names.drop(port)
        self._accounts.drop(port)
        self._rooms.drop(port)

    def _submit(self, port: Port, message: Submit) -> None:
        tag, first, more = message
        run = [Waiting(port, tag, first)]
        if more:
            (
                log, sender, key_id, producer, counter, kind, content_type, _, root, operator,
                identity, _,
            ) = first  # fmt: skip
            for body in more:
                tag += TAG_STEP
                counter += 1
                following = _new(
                    Submission,
                    (
                        log, sender, key_id, producer, counter, kind, content_type, body, root,
                        operator, identity, None,
                    ),
                )  # fmt: skip
                run.append(Waiting(port, tag, following))
        self._queues.submit(run)

    def _attach(self, port: Port, message: Attach) -> None:
        partition = message.partition
        self._rosters.forget(port, partition)
        self._names.mark_unconfirmed(port, partition)
        self._queues.forget(port, partition)
        self._followers.attach(port, partition)

    def _unsubscribe(self, port: Port, message: Unsubscribe) -> None:
        self._followers.unsubscribe(port, message.log)
        self._rosters.leave(message.log, port)

    def _presence(self, port: Port, message: Presence) -> None:
        if self._followers.may_send(port, message.log):
            self._rosters.change(port, message)

    def _who(self, port: Port, message: Who) -> None:
        if self._followers.may_send(port, message.log):
            port.send(self._rosters.members(message))

    def _claim(self, port: Port, message: Claim) -> None:
        if self._followers.may_send(port, INBOX_PREFIX + message.name):
            self._names.claim(port, message)

    def _ask(self, port: Port, message: Ask) -> None:
        if self._followers.may_send(port, message.log):
            if is_room(message.log):
                self._rooms.ask(port, message)
            else:
                self._accounts.ask(port, message)
