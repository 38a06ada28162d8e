"""The scoreboards of a server: its own and, in a rolling upgrade, the one shared with workers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from relay.errors import StartError
from relay.refused_calls import advice
from relay.server.metrics import SUPERVISOR
from relay.server.scoreboard import Scoreboard
from relay.server.supervisor.handover import ROLLING_FORMAT
from relay.server.supervisor.roles import SUPERVISOR_BOARD, Role
from relay.server.supervisor.takeover import Takeover
from relay.server.system.anonymous_file import anonymous_file, set_size


class Boards(dict[str, Scoreboard]):
    """The scoreboards of all roles by name, and of the supervisor."""

    def __init__(
        self, roles: Sequence[Role], formats: Mapping[str, str], takeover: Takeover | None
    ) -> None:
        """Create them, or share the workers' board with the previous server.

        Args:
            roles: of this server.
            formats: of the other data that the worker processes share.
            takeover: from the previous server; None: there was none.
        """
        super().__init__()
        self.formats = dict(formats)
        """What must be equal in two versions whose workers run side by side."""
        self.shared = False
        """True if the workers' board is shared with the previous server."""
        self.owners_fd = -1
        """Of the workers' board, with which the next server can share it."""
        for role in roles:
            if role.owns_partitions:
                self[role.name] = self._owners(role, takeover)
            else:
                self[role.name] = Scoreboard(_rows(role), role.metrics)
            if not (role.owns_partitions and self.shared):
                self[role.name].workers = role.count
        self[SUPERVISOR_BOARD] = Scoreboard(1, SUPERVISOR)

    def _owners(self, role: Role, takeover: Takeover | None) -> Scoreboard:
        rows, metrics = _rows(role), role.metrics
        self.formats |= {
            "scoreboard": Scoreboard.format_of(rows, metrics),
            "upgrade": str(ROLLING_FORMAT),
        }
        if takeover is not None and (fd := takeover.board(self.formats)) >= 0:
            board = Scoreboard(rows, metrics, fd)
            free = sum(not board.row(index).get("pid") for index in range(rows))
            if free >= role.count:
                self.shared, self.owners_fd = True, fd
                return board
            os.close(fd)
            takeover.differ = ["workers"]
        size = Scoreboard.bytes_of(rows, metrics)
        try:
            self.owners_fd = anonymous_file("relay-scoreboard")
            set_size(self.owners_fd, size)
        except OSError as error:
            limits = "raise the limit on the size of files (ulimit -f, LimitFSIZE) or on open files"
            raise StartError(
                f"shared memory of {size} bytes cannot be made: {error.strerror}: "
                f"{advice(error, limits)}"
            ) from error
        return Scoreboard(rows, metrics, self.owners_fd)

    def close_in_child(self) -> None:
        """In a child: close the descriptors. The mappings stay."""
        if self.owners_fd >= 0:
            os.close(self.owners_fd)


def _rows(role: Role) -> int:
    return max(role.count, role.count_max)
