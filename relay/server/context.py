"""The parameters with which the programs of the forked processes are started."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from relay.server.boot import Boot
from relay.server.keys.passphrase import PassphraseSource
from relay.server.privileges import Separation
from relay.server.scoreboard import Scoreboard
from relay.server.settings.live import LiveSettings
from relay.server.system.inherited_secret import InheritedSecret
from relay.server.ticket_register import TicketRegister

CONTROL = "control"
AGENT = "agent"
WORKER = "worker"
"""The names of the roles, in the log and of their scoreboards."""
CTL_SOCKET = "ctl.sock"
"""The socket for ``relay ctl``."""
CTL_DIRECTORY = "ctl"
"""For the sockets on which workers answer the control process."""
SUPERVISOR_MESSAGE_BYTES_MAX = 65_536
BUS_DIRECTORY = "bus"


def worker_socket(runtime: Path, index: int, generation: int) -> Path:
    """Return the path of the socket on which a worker answers the control process."""
    return runtime / CTL_DIRECTORY / f"{index}.{generation}.sock"


def agent_socket(runtime: Path, first_generation: int) -> Path:
    """Return the path of the socket on which a server's key agent answers its workers."""
    return runtime / f"agent.{first_generation}.sock"


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Parameters of a worker: passed to ``worker_main(context) -> int`` in the child.

    TERM: drain. QUIT: stop at once.
    """

    index: int
    """Its slot, 0 to workers - 1: selects its row and its partitions."""
    generation: int
    """Unique in this run of the server; increases with each start of any worker."""
    live: LiveSettings
    """Resolved: no 0 or empty value stands for a default any more. They may change."""
    listeners: tuple[socket.socket, ...]
    """Non-blocking listening sockets, shared with the other workers."""
    scoreboard: Scoreboard
    tickets: TicketRegister
    runtime: Path
    """Directory of mode 0700 for sockets; its paths are short enough for the kernel."""
    data: Path
    registration: str
    """Who may register: "open", "invite" or "closed"."""
    invitation_path: Path
    """Location of the first invitation while it is unused."""
    boot_id: str
    """Of the kernel: changes with a reboot (invariant "Epochs are segments")."""
    parent_fd: int
    """Read end of a pipe: end of file when the supervisor is gone.

    Invariant "Nobody outlives the supervisor"."""
    boot: Boot
    agent_uid: int | None = None
    """The user that the key agent runs as; None: the same as this process."""
    first_generation: int = 0
    """Of the server's processes: above 0 if it took over from another version."""
    gate_fd: int = -1
    """Readable once this worker may open its partitions and accept; -1: it may."""

    @property
    def agent_path(self) -> Path:
        """Path of the key agent's socket."""
        return agent_socket(self.runtime, self.first_generation)


@dataclass(frozen=True, slots=True)
class AgentContext:
    """Parameters of the key agent: passed to ``agent_main(context) -> int`` in the child.

    It reports its key's fingerprint when it serves.
    """

    live: LiveSettings
    socket_path: Path
    key_path: Path
    scoreboard: Scoreboard
    """One row of its own, updated like a worker's."""
    tickets: TicketRegister
    ticket_keys: InheritedSecret
    """What the agent before has left, of this version or the one before, for the one after."""
    passphrase: PassphraseSource
    """Of the key, if it is encrypted."""
    separation: Separation
    """The users that it and its workers run as."""
    new_identity: bool
    """True if the key may differ from the last one, which was lost."""
    expected_fingerprint: str
    """Of the key that this server started with; empty at the first start of the agent."""
    parent_fd: int
    boot: Boot


@dataclass(frozen=True, slots=True)
class ControlContext:
    """Parameters of the control process: passed to ``control_main(context) -> int``."""

    live: LiveSettings
    boards: Mapping[str, Scoreboard]
    """Of all roles by name, and of the supervisor."""
    scoreboard: Scoreboard
    """One row of its own."""
    listener: socket.socket | None
    """For Prometheus; None: no metrics are served."""
    supervisor: socket.socket
    """This process's end of the line to the supervisor."""
    data: Path
    runtime: Path
    parent_fd: int
    boot: Boot
    gate_fd: int = -1
    """Readable once this process may listen; -1: it may."""
