"""The measurements of a run of ``benchmarks.growth``, as stored in JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from benchmarks.growth.fits import Fit


@dataclass(frozen=True, slots=True)
class Point:
    """A figure at one x: the median of some rounds, with their range."""

    x: float
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, x: float, rounds: Sequence[float]) -> Self:
        """Return the point for some rounds."""
        return cls(x, statistics.median(rounds), min(rounds), max(rounds))


@dataclass(frozen=True, slots=True)
class Curve:
    """Points, and the curve fitted to them."""

    name: str
    points: list[Point]
    fit: Fit | None = None

    @property
    def xs(self) -> list[float]:
        """Where it was measured."""
        return [point.x for point in self.points]

    @property
    def ys(self) -> list[float]:
        """What was measured."""
        return [point.median for point in self.points]


@dataclass(frozen=True, slots=True)
class Series:
    """One thing that grows: a table and a panel of the chart. Its curves have the same x."""

    title: str
    axis: str
    """What x is."""
    unit: str
    """What y is."""
    load: str
    curves: list[Curve]
    each: str = ""
    """One more of x, in words; empty: nothing is fitted."""
    labels: dict[str, str] = field(default_factory=dict)
    """Names of points that the number x does not say, by x as it is printed."""
    beside: dict[str, list[float | None]] = field(default_factory=dict)
    """More columns of the table, a value for each x."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain dicts and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Return the object from the result of ``to_json``."""
        curves = [
            Curve(
                one["name"],
                [Point(**point) for point in one["points"]],
                Fit(**one["fit"]) if one["fit"] else None,
            )
            for one in facts["curves"]
        ]
        return cls(**{**facts, "curves": curves})
