"""The command that measures how costs grow: all of its series, tiny."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.growth.curves import Series
from benchmarks.growth.report import BEGIN, END


def test_growth(tmp_path: Path) -> None:
    """It writes figures, and a page with a table of each series."""
    out = tmp_path / "growth.json"
    command = [sys.executable, "-m", "benchmarks.growth", "--quick", "--out", str(out)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    series = [Series.from_json(one) for one in json.loads(out.read_text())["series"]]
    page = (tmp_path / "performance.md").read_text()
    assert len(series) == 8
    assert all(f"### {one.title}\n" in page for one in series)
    assert all(point.median > 0 for one in series for curve in one.curves for point in curve.points)
    assert page.index(BEGIN) < page.index("| members |") < page.index(END)
