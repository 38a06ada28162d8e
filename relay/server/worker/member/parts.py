"""The parts of a member that other packages use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.server.worker.member.attachment import Attachment
    from relay.server.worker.member.catchup import Catchup
    from relay.server.worker.member.claims import Claims
    from relay.server.worker.member.damage import DamageReports
    from relay.server.worker.member.fanout import Fanout
    from relay.server.worker.member.feed import Feeds
    from relay.server.worker.member.forward import Forward
    from relay.server.worker.member.presence import PresenceReports
    from relay.server.worker.member.queries import PendingQueries
    from relay.server.worker.member.receive import FromHomes
    from relay.server.worker.member.repair import Repair
    from relay.server.worker.member.routes import Routes


@dataclass(frozen=True, slots=True)
class MemberParts:
    """The parts of a member that other packages use."""

    routes: Routes
    damage: DamageReports
    feeds: Feeds
    presence: PresenceReports
    catchup: Catchup
    fanout: Fanout
    repair: Repair
    forward: Forward
    claims: Claims
    queries: PendingQueries
    attachment: Attachment
    from_homes: FromHomes
