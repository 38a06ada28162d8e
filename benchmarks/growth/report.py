"""Turn a run of ``benchmarks.growth`` into the tables and the chart of docs/performance.md.

    python -m benchmarks.growth.report [RESULTS.json]

Without an argument: the newest of docs/benchmarks/results. The text between the markers in
docs/performance.md is replaced; a missing page is created.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.growth.curves import Curve, Series
from benchmarks.report import charts
from benchmarks.report.page import DOCS, RESULTS, picture, put, results_given, table

PAGE: Final = "performance.md"
CHART: Final = "growth"
BEGIN: Final = "<!-- growth: made by python -m benchmarks.growth -->"
END: Final = "<!-- end of growth -->"
MARGIN: Final = 0.005
"""A residual below it is printed as "under 1 %"."""


def main() -> int:
    """Write the page and the chart again; return the exit code."""
    found = sorted(RESULTS.glob("growth-*.json"))
    source = results_given(__doc__, "benchmarks.growth.report", found, "make bench-growth")
    print(f"written: {write(source, DOCS)}")
    return 0


def write(source: Path, docs: Path) -> Path:
    """Write tables into a page below ``docs`` and, with matplotlib, a chart; return the page."""
    facts = json.loads(source.read_text(encoding="utf-8"))
    series = [Series.from_json(one) for one in facts["series"]]
    drawn = importlib.util.find_spec("matplotlib") is not None
    if drawn:
        _draw(docs / "benchmarks" / "charts", series)
    page = docs / PAGE
    if not page.exists():
        page.write_text(f"# Performance\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    put(page, BEGIN, END, _text(facts, series, source, drawn=drawn))
    return page


def lines(series: Sequence[Series]) -> list[str]:
    """Return the results for a terminal, one line per curve."""
    return [
        f"{one.title}: {_fitted(one, curve) or _listed(curve)}"
        for one in series
        for curve in one.curves
    ]


# --- text -----------------------------------------------------------------------------------------
def _text(facts: dict[str, Any], series: list[Series], source: Path, *, drawn: bool) -> str:
    machine = facts["machine"]
    parts = [
        (
            f"Measured {facts['date']} by `{facts['command']}`: a figure is the median of "
            f"{_rounds(facts['rounds'])} of about {facts['seconds']:g} s, with the range. "
            f"Machine: {machine['cores']} cores of {machine['cpu']}, kernel {machine['kernel']}, "
            f"Python {machine['python']}, {machine['openssl']}, uvloop {machine['uvloop']}; "
            f"data on {facts['filesystem']}; commit {machine['commit']}. "
            f"All figures: [{source.name}](benchmarks/results/{source.name}). "
            "Curves are fitted by least squares on the relative error."
        )
    ]
    if drawn:
        said = "Small charts: how the cost grows with members, rooms, connections, size, and rate"
        parts.append(picture(CHART, said))
    for one in series:
        parts += [f"### {one.title}", f"{one.load}.", _table(one)]
        parts += [f"{text}." for curve in one.curves if (text := _fitted(one, curve))]
    return "\n\n".join(parts) + "\n"


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"


def _table(one: Series) -> str:
    heads = [one.axis]
    for curve in one.curves:
        name = f"{curve.name}: " if len(one.curves) > 1 else ""
        heads += [f"{name}{one.unit}", "range"]
        if curve.fit is not None:
            heads += ["fitted", "off by"]
    heads += list(one.beside)
    rows = []
    for at, x in enumerate(one.curves[0].xs):
        row = [one.labels.get(f"{x:g}", f"{x:,g}")]
        for curve in one.curves:
            point = curve.points[at]
            row += [number(point.median), f"{number(point.low)} – {number(point.high)}"]
            if curve.fit is not None:
                value = curve.fit(x)
                row += [number(value), f"{100 * (value / point.median - 1):+.0f} %"]
        row += [number(values[at]) for values in one.beside.values()]
        rows.append(row)
    return table(heads, rows)


def _fitted(one: Series, curve: Curve) -> str:
    """Return the formula in words; empty: there is none."""
    fit = curve.fit
    if fit is None:
        return ""
    unit = one.unit.removeprefix("server CPU, ")
    off = (
        "less than 1 %" if fit.residual_max < MARGIN else f"at most {100 * fit.residual_max:.0f} %"
    )
    if fit.shape == "constant":
        said = f"{number(fit.a)} {unit}, whatever the number of {one.axis}"
    else:
        sign = "+" if fit.b >= 0 else "−"
        said = f"{number(fit.a)} {sign} {number(abs(fit.b))} for each {one.each} ({unit})"
    return f"Fitted: **{said}**; the measured points are off by {off}"


def _listed(curve: Curve) -> str:
    pairs = ", ".join(f"{point.x:g}: {number(point.median)}" for point in curve.points)
    return f"{curve.name}: {pairs}"


def number(value: float | None) -> str:
    """Return a figure as shown in a table: three significant digits."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.3f}".rstrip("0")


# --- chart ----------------------------------------------------------------------------------------
def _draw(directory: Path, series: list[Series]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    found = [
        charts.Panel(
            one.title,
            one.axis,
            one.unit,
            [charts.Line(each.name, each.xs, each.points, each.fit) for each in one.curves],
        )
        for one in series
    ]
    charts.panels(
        directory / CHART,
        "How the cost grows: medians with their range, and the fitted curve (both axes log)",
        found,
    )


if __name__ == "__main__":
    sys.exit(main())
