"""Turn a run of ``make bench`` into the table of Relay's own figures in docs/benchmarks.md.

    python -m benchmarks.report.own [SAVED.json]

Without an argument: the newest run in .benchmarks. The figures, without the raw data of every
round, are kept in docs/benchmarks/results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.report.page import PAGE, RESULTS, put, results_given, table

SAVED: Final = Path(__file__).parents[2] / ".benchmarks"
BEGIN: Final = "<!-- own: made by python -m benchmarks.report.own -->"
END: Final = "<!-- end of own -->"
WIDE: Final = 9
"""More figures than this stand below each other."""
HIDDEN: Final = frozenset(
    ("contender", "correct", "n", "p90_us", "max_us", "load_bound", "filesystem", "checked")
)


def main() -> int:
    """Write the results and the page; return the exit code."""
    found = sorted(SAVED.glob("*/*.json"), key=lambda path: path.stat().st_mtime)
    source = results_given(__doc__, "benchmarks.report.own", found, "make bench")
    saved = json.loads(source.read_text(encoding="utf-8"))
    facts = _facts(saved)
    path = RESULTS / f"own-{facts['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    put(PAGE, BEGIN, END, _text(facts, path))
    print(f"written: {PAGE} and {path}")
    return 0


def _facts(saved: dict[str, Any]) -> dict[str, Any]:
    benchmarks = []
    for one in saved["benchmarks"]:
        stats = one["stats"]
        benchmarks.append(
            {
                "group": one["group"],
                "name": one["name"],
                "median_us": round(stats["median"] * 1e6, 3),
                "iqr_us": round(stats["iqr"] * 1e6, 3),
                "rounds": stats["rounds"],
                "figures": one["extra_info"],
            }
        )
    return {
        "date": saved["datetime"][:10],
        "command": "make bench",
        "machine": saved["machine_info"]["relay"],
        "benchmarks": benchmarks,
    }


def _text(facts: dict[str, Any], path: Path) -> str:
    machine = facts["machine"]
    head = (
        f"Measured {facts['date']} by `{facts['command']}` on {machine['cores']} cores of "
        f"{machine['cpu']}, kernel {machine['kernel']}, Python {machine['python']}, "
        f"{machine['openssl']}, commit {machine['commit']}. "
        f"All figures: [{path.name}](benchmarks/results/{path.name})."
    )
    parts = [head]
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in facts["benchmarks"]:
        groups.setdefault(one["group"] or one["name"].split("[")[0], []).append(one)
    for title, group in groups.items():
        parts.append(f"**{title}**")
        if all(one["figures"] for one in group):
            parts.append(_figures(group))
        else:
            rows = [[_name(one), f"{one['median_us']:,.2f}"] for one in group]
            parts.append(table(["", "median, µs"], rows))
    return "\n\n".join(parts) + "\n"


def _figures(group: list[dict[str, Any]]) -> str:
    flat = [_flat(one["figures"]) for one in group]
    keys = [key for key in flat[0] if key not in HIDDEN]
    if len(keys) > WIDE:  # a figure a line
        lines = [
            [key.replace("_", " "), *(_cell(figures.get(key)) for figures in flat)] for key in keys
        ]
        return table(["", *map(_name, group)], lines)
    rows = [
        [_name(one), *(_cell(figures.get(key)) for key in keys)]
        for one, figures in zip(group, flat, strict=True)
    ]
    return table(["", *(key.replace("_", " ") for key in keys)], rows)


def _name(one: dict[str, Any]) -> str:
    name: str = one["name"]
    contender = one["figures"].get("contender")
    return str(contender) if contender else name.removeprefix("test_").replace("_", " ")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    return "–" if value is None else str(value)


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat |= value
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            # A row of each round: each figure with its value of every round.
            flat |= {name: [each.get(name) for each in value] for name in value[0]}
        else:
            flat[key] = value
    return flat


if __name__ == "__main__":
    sys.exit(main())
