"""The scoreboards of a server: its own, and in an upgrade worker by worker that of the workers."""

from __future__ import annotations

from collections.abc import Sequence

from relay.bus.format import BUS_FORMAT
from relay.server.metrics import SUPERVISOR
from relay.server.scoreboard import Scoreboard
from relay.server.supervisor.handover import ROLLING_FORMAT
from relay.server.supervisor.roles import SUPERVISOR_BOARD, Role
from relay.server.supervisor.takeover import Takeover


class Boards(dict[str, Scoreboard]):
    """Those of all roles by name, and of the supervisor."""

    def __init__(self, roles: Sequence[Role], partitions: int, takeover: Takeover | None) -> None:
        """Make them, or share that of the role that owns partitions with the server before.

        Args:
            roles: of this server.
            partitions: how many there are.
            takeover: from the server before; None: there was none.
        """
        super().__init__()
        owner = next((role for role in roles if role.owns_partitions), None)
        self.formats = {} if owner is None else _formats(owner, partitions)
        """What must be the same in two versions whose workers run side by side."""
        self.shared = False
        """The workers' board is that of the server before."""
        for role in roles:
            board = None
            if role is owner and takeover is not None:
                board = _shared(role, takeover, self.formats)
                self.shared = board is not None
            if board is None:
                board = Scoreboard(_rows(role), role.metrics, shared=role is owner)
                board.workers = role.count
            self[role.name] = board
        self[SUPERVISOR_BOARD] = Scoreboard(1, SUPERVISOR)
        self.owners_fd = -1 if owner is None else self[owner.name].fd
        """By which the next server can share it."""

    def close_in_child(self) -> None:
        """In a child: nobody is given them."""
        for board in self.values():
            board.close_fd()


def _shared(role: Role, takeover: Takeover, formats: dict[str, str]) -> Scoreboard | None:
    """Return the board of the server before; None: workers of both cannot run side by side."""
    fd = takeover.board(formats)
    if fd < 0:
        return None
    board = Scoreboard(_rows(role), role.metrics, fd=fd)
    free = sum(not board.row(index).get("pid") for index in range(board.workers_max))
    if free < role.count:
        takeover.differ = ["workers"]
        return None
    return board


def _rows(role: Role) -> int:
    return max(role.count, role.count_max)


def _formats(role: Role, partitions: int) -> dict[str, str]:
    return {
        "bus": str(BUS_FORMAT),
        "partitions": str(partitions),
        "scoreboard": Scoreboard.format_of(_rows(role), role.metrics),
        "upgrade": str(ROLLING_FORMAT),
    }
