"""``relay ctl upgrade``: begins an upgrade, and waits for its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from relay.cli.process.exits import CommandError
from relay.cli.server_commands.ctl_client import Server

PATIENCE_S: Final = 240.0
"""Without progress; longer than the server's own limit."""
LOOK_S: Final = 0.2
GONE_S: Final = 5.0
"""Without a process that holds the data directory. At the switch there is none for a moment."""


def upgrade(server: Server, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Let the version on the disk take over; return who serves now, and who did before.

    Raises:
        CommandError: it has not; the message contains the reason.
    """
    before = server.ask("upgrade-state")
    server.ask("upgrade")
    deadline, to_leave = time.monotonic() + PATIENCE_S, 0
    free_since: float | None = None
    while time.monotonic() < deadline:
        sleep(LOOK_S)
        try:
            now = server.ask("upgrade-state")
        except CommandError:  # there is no answer during the switch
            if not server.has_ended():
                free_since = None
            elif free_since is None:
                free_since = time.monotonic()
            elif time.monotonic() - free_since > GONE_S:
                raise CommandError("not upgraded: the relay has ended") from None
            continue
        free_since = None
        if now.get("to_leave", 0) != to_leave:
            deadline, to_leave = time.monotonic() + PATIENCE_S, now["to_leave"]
        if now["pid"] != before["pid"]:
            return {
                "pid": now["pid"],
                "version": now["version"],
                "pid_before": before["pid"],
                "version_before": before["version"],
            }
        if now.get("stopping"):
            raise CommandError("not upgraded: the relay is stopping")
        if not now["upgrading"]:
            raise CommandError(f"not upgraded, the relay continues as before: {now['failed']}")
    raise CommandError(f"no relay answers after {PATIENCE_S:.0f} s; its log tells more")
