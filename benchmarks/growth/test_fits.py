"""Curves are found again in points that were made from them."""

from __future__ import annotations

import math

import pytest

from benchmarks.growth.curves import Curve, Point, Series
from benchmarks.growth.fits import choose, fit

XS = [1.0, 10.0, 100.0, 1000.0]


def test_a_line_is_found_again() -> None:
    found = fit("linear", XS, [50 + 8 * x for x in XS])
    assert found.a == pytest.approx(50)
    assert found.b == pytest.approx(8)
    assert found.residual_max < 1e-9
    assert found(500) == pytest.approx(50 + 8 * 500)


def test_errors_are_relative() -> None:
    """100 % above at x = 1000 must not bend the line away from the small points."""
    ys = [50 + 8 * x for x in XS]
    small, large = (fit("linear", XS, [*ys[:-1], ys[-1] * factor]) for factor in (1, 2))
    assert large(1) == pytest.approx(small(1), rel=0.15)
    assert large.residual_max > 0.1


def test_a_logarithm_is_told_from_a_constant() -> None:
    grows = [300 + 20 * math.log2(x) for x in XS]
    assert choose("log2", XS, grows).shape == "log2"
    assert choose("log2", XS, [301, 299, 299, 301]).shape == "constant"


def test_few_points_show_no_slope() -> None:
    assert choose("linear", [1, 2], [10, 20]).shape == "constant"


def test_points_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        fit("linear", [1, 2], [0, 1])
    with pytest.raises(ValueError, match="two different x"):
        fit("linear", [2, 2], [1, 1])


def test_a_series_survives_json() -> None:
    points = [Point.of(x, [x, x + 2, x + 1]) for x in XS]
    curve = Curve("cost", points, fit("linear", XS, [point.median for point in points]))
    series = Series("t", "members", "µs", "30/s", [curve], each="member", beside={"more": [None]})
    assert Series.from_json(series.to_json()) == series
