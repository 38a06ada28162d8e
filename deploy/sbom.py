"""Writes deploy/sbom.cdx.json, what the wheel's dependencies are: run by `make lock`.

By cyclonedx-bom, from the lock file of what runs. Left out of what it writes: addresses of servers,
and the lines of the lock file with all their hashes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LEFT_OUT = frozenset({"externalReferences", "description", "tools"})


def stripped(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return a document without what is left out, at every level."""
    if isinstance(value, dict):
        return {key: stripped(item) for key, item in value.items() if key not in LEFT_OUT}
    return [stripped(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Make it."""
    command = [
        *(sys.executable, "-m", "uv", "tool", "run", "--from", "cyclonedx-bom>=7", "cyclonedx-py"),
        *("requirements", "--output-reproducible", "--pyproject", "pyproject.toml"),
        *("--mc-type", "application", "--of", "JSON", "requirements/run.txt"),
    ]
    made = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    text = json.dumps(stripped(json.loads(made.stdout)), indent=1)
    (ROOT / "deploy" / "sbom.cdx.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
