"""The entry point of the process ``relay``: see ``relay.cli.interrupts``."""

from __future__ import annotations

import sys

from relay.cli.interrupts import end_as_process_1, end_at_interrupts


def main() -> int:
    """Load the commands and run one; return its exit code."""
    end_at_interrupts()
    end_as_process_1()
    from relay.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
