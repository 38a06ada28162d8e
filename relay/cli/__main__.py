"""The entry point of the process ``relay``: see ``relay.cli.process.interrupts``.

What a command raises becomes one line in ``relay.cli.process.exits``. What prevents that module
from being loaded, or the standard streams from being prepared, becomes one here.
"""

from __future__ import annotations

import os
import sys

from relay.cli.process.interrupts import end_as_process_1, end_at_interrupts, let_signals_through


def main() -> int:
    """Load the commands and run one; return its exit code."""
    code = _run()
    if sys.flags.inspect and os.environ.get("PYTHONINSPECT"):
        # The interpreter would print a traceback, exit with 1, and wait for input at a terminal.
        os._exit(code)
    return code


def _run() -> int:
    try:
        _prepare_signals()
        # Now: when something has failed, there may be no memory or descriptor left to load it.
        from relay.cli.process import last_resort
        from relay.loading import no_collections

        with no_collections():
            from relay.cli.main import main as run

        return run()
    except Exception as error:  # noqa: BLE001  # whatever the system refused
        from relay.cli.process import last_resort

        last_resort.report_failed_start(error)
        return 1


def _prepare_signals() -> None:
    """Do what must be done about signals before anything that takes long is loaded."""
    end_at_interrupts()
    if sys.platform == "linux" and sys.argv[1:2] == ["serve"]:
        from relay.server.system import start_signals

        start_signals.reset()
    else:
        let_signals_through()
    end_as_process_1()


if __name__ == "__main__":
    sys.exit(main())
