"""How much a run did to the relay, and whether that is enough to be meaningful."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Effort:
    """Counts of one run, from the nemesis' record, the clients' files and the server's counters."""

    acknowledged: int = 0
    """Messages."""
    delivered: int = 0
    """Entries that readers got."""
    worker_kills: int = 0
    agent_kills: int = 0
    server_kills: int = 0
    """The whole server, by SIGKILL of its supervisor."""
    server_stops: int = 0
    """The whole server, by SIGTERM."""
    reboots: int = 0
    """Kills of the whole server after which the machine seems to have been rebooted."""
    power_cuts: int = 0
    """Kills of the whole server after which unsynced writes are lost."""
    unsynced: int = 0
    """Bytes that were written and lost with the power."""
    client_kills: int = 0
    cuts: int = 0
    """Connections of clients cut in the middle."""
    stops: int = 0
    """Workers and readers stopped (SIGSTOP) for a while."""
    dropped: int = 0
    """Bus batches that were dropped."""
    links_cut: int = 0
    """Links between two workers cut while both live."""
    reconnects: int = 0
    """Logins of clients beyond their first."""
    resumes: int = 0
    """Of those, and of restarted processes: by readers that resumed from their cursors."""
    resent: int = 0
    """Messages that were transmitted again."""
    catch_ups: int = 0
    """Times that a reader left live because it was too slow, and read the log."""
    repairs: int = 0
    """Times that a worker read from the log what the bus had lost."""

    def short_of(self, minimum: Effort) -> list[str]:
        """Describe where this is less than ``minimum``."""
        return [
            f"{name}: {have}, at least {want} expected"
            for name in (field.name for field in fields(self))
            if (have := getattr(self, name)) < (want := getattr(minimum, name))
        ]

    def lines(self) -> list[str]:
        """Return all counts, one a line."""
        names = [field.name for field in fields(self)]
        return [f"{name.replace('_', ' '):14} {getattr(self, name):>9,}" for name in names]
