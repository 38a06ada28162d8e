"""The parts of a home that other packages use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.server.worker.home.accounts import AccountsHome
    from relay.server.worker.home.followers import Followers
    from relay.server.worker.home.names import NameRegistry
    from relay.server.worker.home.partitions import OwnPartitions
    from relay.server.worker.home.permissions import Permissions
    from relay.server.worker.home.publishing import Interest
    from relay.server.worker.home.receive import FromMembers
    from relay.server.worker.home.room_rules import RoomRules
    from relay.server.worker.home.rooms import RoomsHome
    from relay.server.worker.home.rosters import Rosters
    from relay.server.worker.home.submission_queues import SubmissionQueues
    from relay.server.worker.home.writer import Writer


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
