"""A pytest plugin: where the processor time of a test run goes, by file and by test.

    make test ARGS="-p tests.support.cpu_report tests/cli"

Counts the process of the tests and everything below it: relays, commands, and what they are forked
from. These figures hardly depend on what else the machine does, as durations do. What a fixture of
a module or a session costs is counted for the test that needs it first.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from operator import itemgetter
from typing import Final

import pytest

FILES_SHOWN: Final = 40
TESTS_SHOWN: Final = 40
KEY: Final = "cpu_s"
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_last_s = 0.0
_by_test: defaultdict[str, float] = defaultdict(float)


def used_s() -> float:
    """Return the processor time of this process and all that it has started, in seconds."""
    times = os.times()
    below = sum(_ticks(pid) for pid in _below(os.getpid()))
    return time.process_time() + times.children_user + times.children_system + below / _TICKS_PER_S


def _below(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _below(child)


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            found += _read(f"/proc/{pid}/task/{thread}/children").split()
    return [int(child) for child in found]


def _ticks(pid: int) -> int:
    """Return the ticks of a process and of its children that have ended, from the kernel."""
    with contextlib.suppress(OSError):
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return 0


def _read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123
        return file.read()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to each report what was used since the report before, in the process of the tests."""
    global _last_s
    report = yield
    now_s = used_s()
    report.user_properties.append((KEY, now_s - _last_s))
    _last_s = now_s
    return report


def pytest_collection_finish() -> None:
    """Importing and collecting belongs to no test."""
    global _last_s
    _last_s = used_s()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up, in the process that reports."""
    for name, value in report.user_properties:
        if name == KEY and isinstance(value, float):
            _by_test[report.nodeid] += value


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the files and the tests that used most."""
    by_file: defaultdict[str, float] = defaultdict(float)
    for name, spent_s in _by_test.items():
        by_file[name.partition("::")[0]] += spent_s
    terminalreporter.section(f"processor time of all tests: {sum(by_file.values()):.1f} s")
    for counted, shown in ((by_file, FILES_SHOWN), (_by_test, TESTS_SHOWN)):
        for name, spent_s in sorted(counted.items(), key=itemgetter(1), reverse=True)[:shown]:
            terminalreporter.write_line(f"{spent_s:9.2f} s  {name}")
        terminalreporter.write_line("")
