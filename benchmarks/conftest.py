"""Shared by all benchmarks: their scale, where they run, and the table of figures at the end."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.measure import machine
from benchmarks.measure.cpu_clock import server_cpu
from benchmarks.measure.scale import Scale
from tests.support.cluster import Relay
from tests.support.processes import Processes

TIMEOUT_S: Final = 900
LONG: Final = frozenset({"paired", "growth", "stalls", "storm", "search"})
"""Programs that are run as a whole: one that was begun late would run alone at the end."""
SHOWN: Final = (
    "cpu_us_per_delivery",
    "deliveries_per_s",
    "kept_up",
    "load_share",
    "p50_us",
    "p99_us",
    "pages_per_commit",
)


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    """The full measurement, or a smoke test."""
    return Scale(bool(pytestconfig.getoption("benchmark_disable")))


@pytest.fixture(scope="session", autouse=True)
def _apart() -> Iterator[None]:
    """Keep this process, which publishes, away from the server's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, machine.LOAD_CORES)
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def watch() -> Iterator[Any]:
    """A function that tells the benchmark's clock which server's CPU time to show."""
    gc.collect()

    def start(processes: Processes) -> None:
        processes.refresh()
        server_cpu.watch(processes)

    yield start
    server_cpu.watch(None)


def pytest_configure(config: pytest.Config) -> None:
    """What is not measured is started as in the tests: importing takes most of the time there."""
    Relay.forked = bool(config.getoption("benchmark_disable"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A benchmark may take longer than a test; what takes longest is begun first."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Record what the figures depend on."""
    machine_info["relay"] = machine.describe()


def pytest_benchmark_compare_machine_info(
    benchmarksession: Any,  # noqa: ANN401
    machine_info: dict[str, Any],
    compared_benchmark: dict[str, Any],
) -> None:
    """Name what else than the commit differs between this run and the one that it is compared with.

    pytest-benchmark warns of any difference, and every commit is one; that warning is switched
    off in pyproject.toml, because a warning ends a run here.
    """
    now, then = machine_info["relay"], compared_benchmark["machine_info"].get("relay", {})
    differences = [
        f"{fact} {then.get(fact, 'not recorded')}, now {now.get(fact, 'not recorded')}"
        for fact in sorted(now.keys() | then.keys())
        if fact != "commit" and now.get(fact) != then.get(fact)
    ]
    line = f"compared with a run of commit {then.get('commit', 'not recorded')}"
    if differences:
        line += ", which is not comparable: " + "; ".join(differences)
    benchmarksession.logger.info(line)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401
    """Print the figures that are not in the table of times."""
    session = getattr(config, "_benchmarksession", None)
    rows = [
        (bench.group or "", bench.name, _flat(bench.extra_info))
        for bench in getattr(session, "benchmarks", [])
        if bench.extra_info
    ]
    if not rows:
        return
    terminalreporter.section("figures")
    for group, name, figures in rows:
        terminalreporter.write_line(f"{group}: {name}")
        shown = [f"{key} {value:,}" for key, value in figures.items() if key in SHOWN]
        rest = [f"{key} {value}" for key, value in figures.items() if key not in SHOWN]
        terminalreporter.write_line("    " + "  ".join(shown))
        terminalreporter.write_line("    " + "  ".join(rest))


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat
