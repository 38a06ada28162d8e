"""Charts as SVG, each for light and for dark pages. Needs matplotlib (requirements/peers.txt)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

# After Okabe and Ito's palette: told apart by colour-blind readers, on light and on dark. The first
# two are Relay's; the builds of one server have shades of one colour.
COLOURS: Final = (
    "#D55E00", "#8B2500", "#0072B2", "#56B4E9", "#1B3A6B", "#6A9FB5", "#009E73", "#CC79A7",
    "#7B3F73", "#E69F00", "#B8A500", "#999999",
)  # fmt: skip
FIRST: Final = "Relay"
LEGEND_ACROSS: Final = 6
TEXT: Final = {"light": "#24292f", "dark": "#e6edf3"}
GRID: Final = {"light": "#d0d7de", "dark": "#30363d"}
TICKS_MAX: Final = 5
"""So many points of a small chart fit below it, each with its number."""


class Figure(Protocol):
    """A value with its range."""

    @property
    def median(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def grouped(
    path: Path,
    title: str,
    unit: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Figure | None]],
) -> None:
    """Draw groups of bars on a log scale; lines show the range over the rounds."""
    colours = _colours(list(series))
    for axes in _drawn(path, title, (11, 4.6)):
        width = 0.84 / len(series)
        for number, (name, figures) in enumerate(series.items()):
            there = [(at, each) for at, each in enumerate(figures) if each is not None]
            axes.bar(
                [at - 0.42 + width * (number + 0.5) for at, _ in there],
                [each.median for _, each in there],
                width * 0.92,
                yerr=_errors([each for _, each in there]),
                label=name,
                color=colours[name],
                error_kw={"ecolor": "#888888", "elinewidth": 0.8},
            )
        axes.set_yscale("log")
        axes.set_ylabel(unit)
        axes.set_xticks(range(len(groups)), [group.replace(", ", ",\n") for group in groups])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(
            frameon=False,
            ncols=min(len(series), LEGEND_ACROSS),
            fontsize=8,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
        )


def bars(path: Path, title: str, unit: str, series: Mapping[str, Figure | None]) -> None:
    """Draw one horizontal bar for each name."""
    there = {name: each for name, each in series.items() if each is not None}
    colours = _colours(list(there))
    for axes in _drawn(path, title, (8, 0.45 * len(there) + 1.2)):
        figures = list(there.values())
        axes.barh(
            list(there),
            [each.median for each in figures],
            xerr=_errors(figures),
            color=[colours[name] for name in there],
            error_kw={"ecolor": "#888888", "elinewidth": 0.8},
        )
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.set_xlim(left=0)


@dataclass(frozen=True, slots=True)
class Line:
    """Measured points, and a curve through them."""

    name: str
    xs: Sequence[float]
    figures: Sequence[Figure]
    curve: Callable[[float], float] | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """A small chart among others."""

    title: str
    x_unit: str
    y_unit: str
    lines: Sequence[Line]


def panels(path: Path, title: str, found: Sequence[Panel], across: int = 3) -> None:
    """Draw small charts side by side, both axes logarithmic: a point is a median with its range."""
    down = -(-len(found) // across)
    for theme in ("light", "dark"):
        with _style(theme) as pyplot:
            figure, places = pyplot.subplots(
                down,
                across,
                figsize=(3.7 * across, 3.1 * down),
                layout="constrained",
                squeeze=False,
            )
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=TEXT[theme])
            for axes in places.flat[len(found) :]:
                axes.set_axis_off()
            for axes, panel in zip(places.flat, found, strict=False):
                _tidy(axes, panel.title)
                _panel(axes, panel)
            _save(pyplot, figure, path, theme)


def _panel(axes: Any, panel: Panel) -> None:  # noqa: ANN401
    for number, line in enumerate(panel.lines):
        colour = COLOURS[number]
        axes.errorbar(
            line.xs,
            [each.median for each in line.figures],
            yerr=_errors(line.figures),
            fmt="o" if line.curve else "o:",
            markersize=4,
            linewidth=0.8,
            color=colour,
            label=line.name,
        )
        if line.curve is not None:
            dense = _dense(line.xs)
            axes.plot(dense, [line.curve(x) for x in dense], color=colour, linewidth=1.2)
    xs = panel.lines[0].xs
    if min(xs) > 0:
        axes.set_xscale("log")
    else:  # 0 has a place of its own, left of the first step
        axes.set_xscale("symlog", linthresh=min(x for x in xs if x))
    axes.set_yscale("log")
    _room(
        axes,
        [value for line in panel.lines for each in line.figures for value in (each.low, each.high)],
    )
    if len(xs) <= TICKS_MAX:
        axes.set_xticks(xs)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter("{x:,g}" if _decades(axes) < 1 else "")
    axes.set_xlabel(panel.x_unit)
    axes.set_ylabel(panel.y_unit)
    if len(panel.lines) > 1:
        axes.legend(frameon=False, fontsize=8)


def _dense(xs: Sequence[float], steps: int = 80) -> list[float]:
    """Return many x between the first and the last, evenly spread on a log scale, 0 kept."""
    first = min(x for x in xs if x)
    ratio = max(xs) / first
    dense = [first * ratio ** (step / steps) for step in range(steps + 1)]
    return [first * step / 20 for step in range(20)] + dense if min(xs) == 0 else dense


def _room(axes: Any, values: Sequence[float]) -> None:  # noqa: ANN401
    """Show at least a factor of 4: noise of a few per cent should look small."""
    low, high = min(values), max(values)
    spare = max((4 / (high / low)) ** 0.5, 1.15) if low > 0 else 1.15
    axes.set_ylim(low / spare, high * spare)


def _decades(axes: Any) -> float:  # noqa: ANN401
    low, high = axes.get_ylim()
    return math.log10(high / low)


def _colours(names: list[str]) -> dict[str, str]:
    ordered = sorted(names, key=lambda name: name != FIRST)
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(ordered)}


def _errors(figures: Sequence[Figure]) -> list[list[float]]:
    return [
        [each.median - each.low for each in figures],
        [each.high - each.median for each in figures],
    ]


def _drawn(path: Path, title: str, size: tuple[float, float]) -> Iterator[Any]:
    """Yield axes twice, for light and for dark pages, and save what was drawn on them."""
    for theme in ("light", "dark"):
        with _style(theme) as pyplot:
            figure, axes = pyplot.subplots(figsize=size, layout="constrained")
            _tidy(axes, title)
            yield axes
            _save(pyplot, figure, path, theme)


def _tidy(axes: Any, title: str) -> None:  # noqa: ANN401
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(visible=True, which="major", axis="both", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(pyplot: Any, figure: Any, path: Path, theme: str) -> None:  # noqa: ANN401
    figure.savefig(
        path.with_name(f"{path.name}-{theme}.svg"), transparent=True, metadata={"Date": None}
    )
    pyplot.close(figure)


@contextmanager
def _style(theme: str) -> Iterator[Any]:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    text, grid = TEXT[theme], GRID[theme]
    with mpl.rc_context(
        {
            "text.color": text,
            "axes.labelcolor": text,
            "axes.titlecolor": text,
            "axes.edgecolor": grid,
            "xtick.color": text,
            "ytick.color": text,
            "grid.color": grid,
            "font.size": 9,
            "svg.fonttype": "none",
            "svg.hashsalt": "relay",
            "font.family": "sans-serif",
        }
    ):
        yield pyplot
