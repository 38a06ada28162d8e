"""The parts of a home that other packages use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.server.worker.home.accounts.names import NameRegistry
    from relay.server.worker.home.accounts.requests import AccountsHome
    from relay.server.worker.home.committing.submission_queues import SubmissionQueues
    from relay.server.worker.home.committing.writer import Writer
    from relay.server.worker.home.direct.permissions import Permissions
    from relay.server.worker.home.followers.attached_workers import Followers
    from relay.server.worker.home.followers.publishing import Interest
    from relay.server.worker.home.followers.rosters import Rosters
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.receive import FromMembers
    from relay.server.worker.home.rooms.requests import RoomsHome
    from relay.server.worker.home.rooms.rules import RoomRules


@dataclass(frozen=True, slots=True)
class HomeParts:
    """The parts of a home that other packages use."""

    partitions: OwnPartitions
    followers: Followers
    interest: Interest
    queues: SubmissionQueues
    writer: Writer
    permissions: Permissions
    rosters: Rosters
    names: NameRegistry
    accounts: AccountsHome
    rooms: RoomsHome
    rules: RoomRules
    from_members: FromMembers
