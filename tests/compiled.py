"""Check that tests would run against the compiled build: ``python -m tests.compiled``.

It fails unless each module of ``relay.compiled.MODULES`` is an extension that can be imported, from
an installation outside of the directory in which the tests lie.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

from relay import compiled


def main() -> int:
    """Print the errors, and return the exit code."""
    here = Path.cwd()
    package = Path(compiled.__file__).parent
    if package.is_relative_to(here):
        print(f"relay would be imported from {package}: run this away from its sources")
        return 1
    others = [name for name in compiled.MODULES if not _is_extension(name)]
    if others:
        print("not compiled:", *others)
        return 1
    print(f"{len(compiled.MODULES)} compiled modules in {package}")
    return 0


def _is_extension(name: str) -> bool:
    module = importlib.import_module(name)
    return module.__spec__ is not None and isinstance(module.__spec__.loader, ExtensionFileLoader)


if __name__ == "__main__":
    sys.exit(main())
