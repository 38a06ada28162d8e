"""A pytest plugin: runs tests on a busy machine, beside processes that only use CPU time.

    make test ARGS="-p tests.support.busy tests/system"

A test that passes alone and fails here depends on time, or has met a race of the product.
``--burners`` is the number of these processes: by default two for each core.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.support.burners import burners


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let their number be chosen."""
    usual = 2 * (os.cpu_count() or 1)
    parser.addoption("--burners", type=int, default=usual, help=f"default: {usual}")


def pytest_configure(config: pytest.Config) -> None:
    """Start them, but not once more in each process of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        stack = contextlib.ExitStack()
        stack.enter_context(burners(config.getoption("--burners")))
        config.add_cleanup(stack.close)
