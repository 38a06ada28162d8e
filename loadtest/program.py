"""How the programs of the load test start and end: run, smoke, chaos and curve."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn

from relay.errors import UsageError
from relay.testing import RelayNotStarted, RelayNotStopped

ROOT: Final = Path(__file__).parent.parent
NEEDED: Final = ("locust", "hdrh", "psutil", "cryptography")
"""Some of what only the environment has that ``make`` sets up."""


class Interrupted(BaseException):
    """The run was ended by SIGTERM or Ctrl-C; it has printed its summary and has this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def end_by_signals() -> None:
    """Let SIGTERM end this program as Ctrl-C does: what it started is ended, too."""

    def terminated(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminated)


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a program's main with the command line's arguments, and exit with its status."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        python = ROOT / ".venv" / "bin" / "python"
        module = Path(sys.argv[0]).stem
        sys.exit(
            f"loadtest: this Python has no module {missing[0]!r}; run make .venv/.dev once, "
            f"then {python} -m loadtest.{module}"
        )
    end_by_signals()
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(2)
    except (RelayNotStarted, RelayNotStopped) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as interrupted:
        sys.exit(interrupted.status)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
