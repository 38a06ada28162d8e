"""A target of the fuzzer, and how it is run for a while."""

from __future__ import annotations

import random
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import engine
from hypothesis.strategies import SearchStrategy

from tests.fuzz.inputs import CORPUS
from tests.fuzz.mutate import mutated, reduced

EXAMPLE_S: Final = 20.0
"""An example that takes longer hangs: the largest inputs take milliseconds."""


# Hypothesis has no setting for it, and five minutes are too long for CI.
engine.MAX_SHRINKING_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Target:
    """A function that processes hostile input."""

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]
    """Raises if a guarantee is violated: an undocumented exception, or an assertion."""
    examples: int = 100
    """Inputs of one slice: a second's worth at most. Each slice has a seed of its own, so that one
    alone repeats a finding.
    """
    of_bytes: Callable[[bytes], Any] | None = None
    """Makes an input of plain bytes; then many mutated ones are tried as well."""
    seeds: Sequence[bytes] = ()
    """Bytes that are mutated."""
    quick: int = 0
    """How many mutations in a slice."""

    @property
    def inputs_max(self) -> int:
        """How many inputs a slice tries."""
        return self.examples + self.quick


class Hang(Exception):
    """An input did not finish in time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation, and how to reproduce it."""

    target: str
    seed: int
    report: str
    """The smallest input that was found, and the traceback."""


def run_slice(target: Target, seed: int) -> Finding | None:
    """Try some inputs; on a failure look for the smallest one that fails."""
    return _by_mutation(target, seed) or _by_strategy(target, seed)


def _by_mutation(target: Target, seed: int) -> Finding | None:
    chance = random.Random(f"{target.name} {seed}")
    for _ in range(target.quick):
        data = mutated(chance, target.seeds)
        error = _failure(target, data)
        if error is None:
            continue
        return Finding(target.name, seed, _small(target, data, error))
    return None


def _small(target: Target, data: bytes, error: Exception) -> str:
    """Look for a small input with the same kind of failure; describe it."""
    small = reduced(data, lambda less: type(_failure(target, less)) is type(error))
    shown = "".join(traceback.format_exception(_failure(target, small) or error))
    advice = f"keep them as a file in tests/fuzz/{CORPUS.name}/{target.name}"
    return f"{shown}\nbytes ({len(small)}): {small!r}\n{advice}\n"


def _failure(target: Target, data: bytes) -> Exception | None:
    assert target.of_bytes is not None
    try:
        with no_longer_than(EXAMPLE_S):
            target.check(target.of_bytes(data))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        return error
    return None


def _by_strategy(target: Target, seed: int) -> Finding | None:
    @hypothesis.seed(seed)
    @settings(
        max_examples=target.examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    @hypothesis.given(target.inputs)
    def tried(value: object) -> None:
        with no_longer_than(EXAMPLE_S):
            target.check(value)

    try:
        tried()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        return Finding(target.name, seed, "".join(traceback.format_exception(error)))
    return None


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Raise Hang inside of a call that takes longer. For the main thread."""

    def hang(*_: object) -> None:
        raise Hang(f"an input was worked on for more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
