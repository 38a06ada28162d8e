"""Fit a curve to measured costs: a + b·g(x), least squares on the relative error.

Relative, because the points span orders of magnitude: otherwise the largest one alone would decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Shape = Literal["constant", "linear", "log2"]
SHAPES: Final[dict[Shape, Callable[[float], float]]] = {
    "constant": lambda x: 0.0,
    "linear": lambda x: x,
    "log2": math.log2,
}


@dataclass(frozen=True, slots=True)
class Fit:
    """A curve, and how far the points are from it."""

    shape: Shape
    a: float
    b: float
    """0 for a constant."""
    residual_max: float
    """The largest distance of a point from the curve, as a share of the measured value."""

    def __call__(self, x: float) -> float:
        """Return the fitted value."""
        return self.a + self.b * SHAPES[self.shape](x)


def fit(shape: Shape, xs: Sequence[float], ys: Sequence[float]) -> Fit:
    """Return the curve of a shape through points.

    Raises:
        ValueError: a value is not above 0, or there are too few different x.
    """
    if not ys or min(ys) <= 0:
        raise ValueError("relative errors need values above 0")
    gs = [SHAPES[shape](x) for x in xs]
    weights = [1 / y**2 for y in ys]
    total = sum(weights)
    g_mean = sum(w * g for w, g in zip(weights, gs, strict=True)) / total
    y_mean = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    b = 0.0
    if shape != "constant":
        spread = sum(w * (g - g_mean) ** 2 for w, g in zip(weights, gs, strict=True))
        if not spread:
            raise ValueError("a slope needs two different x")
        both = (w * (g - g_mean) * (y - y_mean) for w, g, y in zip(weights, gs, ys, strict=True))
        b = sum(both) / spread
    a = y_mean - b * g_mean
    residual_max = max(abs(a + b * g - y) / y for g, y in zip(gs, ys, strict=True))
    return Fit(shape, a, b, residual_max)


def choose(shape: Shape, xs: Sequence[float], ys: Sequence[float]) -> Fit:
    """Return the curve of a shape, or the constant if that predicts the points better.

    Each point is left out once and predicted from the others (cross-validation): a slope that only
    follows the noise predicts worse than none. Below 4 points it is always the constant.
    """
    if len(xs) < 4 or _foretold(shape, xs, ys) >= _foretold("constant", xs, ys):
        return fit("constant", xs, ys)
    return fit(shape, xs, ys)


def _foretold(shape: Shape, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the sum of squared relative errors over the points, each left out once."""
    total = 0.0
    for out, (x, y) in enumerate(zip(xs, ys, strict=True)):
        others = [at for at in range(len(xs)) if at != out]
        curve = fit(shape, [xs[at] for at in others], [ys[at] for at in others])
        total += (curve(x) / y - 1) ** 2
    return total
