"""The plan of a run against a whole server, and its result: a row of a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tests.fuzz.attacks import ATTACKS

CONNECTIONS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run."""

    name: str
    attacks: tuple[str, ...]
    seed: int
    seconds: float
    """Of the attack."""
    compare_s: float = 0.0
    """How long the pair talks alone, and how long beside burners. 0: not at all."""
    connections: int = CONNECTIONS_MAX
    processes: int = 2
    """Of attackers, and of burners."""
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Row:
    """The result."""

    plan: Plan
    calm: list[float] = field(default_factory=list)
    """Latencies of messages in seconds, sorted; likewise those below."""
    burned: list[float] = field(default_factory=list)
    arrival: list[float] = field(default_factory=list)
    """While the attackers arrive: connect, register, log in, concurrently."""
    arrival_s: float = 0.0
    """The length of that phase."""
    attacked: list[float] = field(default_factory=list)
    """From then on."""
    burners_cores: float = 0.0
    """How many cores the burners used."""
    attackers_cores: float = 0.0
    """How many the attackers used during the attack; the server used others for them."""
    turn_ms: float | None = None
    """The longest turn of a worker; None: none was long enough to be logged."""
    turn_cpu_ms: float | None = None
    """Likewise, of CPU time alone."""
    killed: int = 0
    """Workers that do not run any more."""
    grown_mib: float = 0.0
    """Growth of the processes' memory: the sum of each one's highest during the attack, minus
    before.
    """
    removed_s: float | None = None
    """How long a removed device stayed connected; None: not measured."""
    disabled_s: float | None = None
    """Likewise, a disabled user."""
    steps: dict[str, int] = field(default_factory=dict)
    """How often each attack was begun."""
    cut_off: bool = False
    """True if the pair itself was affected."""
    findings: list[str] = field(default_factory=list)

    @property
    def begun(self) -> int:
        """How many attacks were begun in all."""
        return sum(count for name, count in self.steps.items() if name in ATTACKS)


def part(sorted_s: list[float], of: float) -> str:
    """Return a quantile in ms."""
    if not sorted_s:
        return "-"
    return f"{quantile(sorted_s, of) * 1000:,.1f}"


def quantile(sorted_s: list[float], of: float) -> float:
    """Return a quantile of at least one."""
    return sorted_s[min(len(sorted_s) - 1, int(of * len(sorted_s)))]


TITLES: Final = (
    "attack", "arrival s", "p99 ms", "times", "attack p50", "p99 ms", "times", "max ms",
    "beside burners p99", "calm p99", "burners' cores", "attackers' cores",
    "longest turn ms", "of which CPU", "device gone ms", "user gone ms", "workers killed",
    "MiB grown", "steps",
)  # fmt: skip


def cells(row: Row) -> list[str]:
    """Return a row of the table."""
    return [
        row.plan.name,
        f"{row.arrival_s:.1f}",
        part(row.arrival, 0.99),
        times(row.arrival, row.burned),
        part(row.attacked, 0.5),
        part(row.attacked, 0.99),
        times(row.attacked, row.burned),
        "cut off" if row.cut_off else part(row.attacked, 1.0),
        part(row.burned, 0.99),
        part(row.calm, 0.99),
        f"{row.burners_cores:.2f}",
        f"{row.attackers_cores:.2f}",
        "-" if row.turn_ms is None else f"{row.turn_ms:.0f}",
        "-" if row.turn_cpu_ms is None else f"{row.turn_cpu_ms:.0f}",
        "-" if row.removed_s is None else f"{row.removed_s * 1000:.0f}",
        "-" if row.disabled_s is None else f"{row.disabled_s * 1000:.0f}",
        str(row.killed),
        f"{row.grown_mib:.0f}",
        f"{row.begun:,}",
    ]


def times(sorted_s: list[float], others_s: list[float]) -> str:
    """Return how many times slower the slowest hundredth was than beside the burners."""
    if not sorted_s or not others_s:
        return "-"
    return f"{quantile(sorted_s, 0.99) / quantile(others_s, 0.99):.1f}"


def markdown(values: list[str] | tuple[str, ...]) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(values) + " |"
