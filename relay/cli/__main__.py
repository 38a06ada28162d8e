"""The entry point of the process ``relay``: see ``relay.cli.interrupts``.

What a command raises becomes one line in ``relay.cli.exits``. What prevents that module from being
loaded, or the standard streams from being prepared, becomes one here.
"""

from __future__ import annotations

import os
import sys

from relay.cli.interrupts import end_as_process_1, end_at_interrupts
from relay.cli.last_resort import report_failed_start
from relay.loading import no_collections


def main() -> int:
    """Load the commands and run one; return its exit code."""
    code = _run()
    if sys.flags.inspect and os.environ.get("PYTHONINSPECT"):
        # The interpreter would print a traceback, exit with 1, and wait for input at a terminal.
        os._exit(code)
    return code


def _run() -> int:
    try:
        end_at_interrupts()
        end_as_process_1()
        with no_collections():
            from relay.cli.main import main as run

        return run()
    except Exception as error:  # noqa: BLE001  # whatever the system refused
        report_failed_start(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
