"""How the benchmark programs start and end."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

OURS = ("relay", "tests", "benchmarks")


def run(module: str) -> NoReturn:
    """Run a module's main and exit with its status. Outside the environment: say what to do."""
    try:
        sys.exit(import_module(module).main())
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OURS:
            raise
        python = Path(__file__).parents[1] / ".venv" / "bin" / "python"
        sys.exit(
            f"benchmarks: this Python has no module {error.name!r}; "
            f"run make .venv/.peers once, then {python} -m {module.rpartition('.')[0]}"
        )
