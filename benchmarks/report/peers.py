"""Turn the peers' results into the tables and charts of docs/benchmarks.md and of the README.

    python -m benchmarks.report [RESULTS.json]

Without an argument: the newest of docs/benchmarks/results. What stands between the markers in
those pages is replaced. A figure is the median over the rounds; two figures whose ranges
over the rounds meet are a tie.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.report import charts
from benchmarks.report.page import CHARTS, DOCS, PAGE, RESULTS, picture, put, results_given, table

README: Final = DOCS.parent / "README.md"
BEGIN: Final = "<!-- peers: made by python -m benchmarks.report -->"
END: Final = "<!-- end of peers -->"
BEGIN_HEADLINE: Final = "<!-- headline: made by python -m benchmarks.report -->"
END_HEADLINE: Final = "<!-- end of headline -->"
RELAY: Final = "Relay"
COMPILED: Final = "Relay compiled"
FLOOR: Final = "kernel floor"
NOT_IN_HEADLINE: Final = frozenset({FLOOR, "NATS of Debian TLS"})
"""No server; and a second version of one, which the full table has."""
HALF: Final = "half of its own saturated rate"
KEEPS_UP: Final = 0.9
"""Of what was offered, delivered when the last message was sent; some are always on their way."""


class Figure(NamedTuple):
    """A median with its range over the rounds."""

    median: float
    low: float
    high: float

    def ties(self, other: Figure) -> bool:
        """Tell whether the ranges meet."""
        return self.low <= other.high and other.low <= self.high


Results = dict[str, dict[str, Any]]
Pick = Callable[[dict[str, Any]], float | None]


def main() -> int:
    """Write the charts and the page; return the exit code."""
    found = sorted(RESULTS.glob("peers-*.json"))
    source = results_given(__doc__, "benchmarks.report", found, "make bench-peers")
    facts = json.loads(source.read_text(encoding="utf-8"))
    there = {name: one for name, one in facts["results"].items() if one["turns"]}
    results: Results = {name: there[name] for name in sorted(there, key=_place)}
    if RELAY not in results:
        print(f"{source} holds no results of {RELAY}")
        return 1
    put(PAGE, BEGIN, END, _text(facts, results, source))
    put(README, BEGIN_HEADLINE, END_HEADLINE, _headline(facts, results))
    _draw(results)
    print(f"written: {PAGE} and {CHARTS}")
    return 0


def _place(name: str) -> int:
    """Relay first, in both builds, the floor last, the peers between them in their order."""
    return {RELAY: 0, COMPILED: 1, FLOOR: 3}.get(name, 2)


# --- figures ----------------------------------------------------------------------------------
def figure(one: dict[str, Any], pick: Pick) -> Figure | None:
    """Return the figure of one contender; None: it has none in any round."""
    values = [value for turn in one["turns"] if (value := pick(turn)) is not None]
    return Figure(statistics.median(values), min(values), max(values)) if values else None


def of_load(load: str, key: str) -> Pick:
    """Return what picks a figure of a load from a turn."""

    def pick(turn: dict[str, Any]) -> float | None:
        found = turn["loads"].get(load)
        if found is None:
            return None
        value: float | None = found.get(key, found["delivery"].get(key))
        return value

    return pick


def keeps_up(one: dict[str, Any], load: str) -> bool:
    """Return True if a server kept up with an offered load; always with a saturating one."""
    if load.startswith("saturated"):
        return True
    found = figure(one, of_load(load, "kept_up"))
    return found is not None and found.median >= KEEPS_UP


def load_bound(one: dict[str, Any], load: str) -> bool:
    """Return True if the load generator was the bottleneck in any round: no ratio is shown then."""
    return any(turn["loads"].get(load, {}).get("load_bound", False) for turn in one["turns"])


def loads_of(results: Results) -> list[str]:
    """Return the loads that are the same for all, in their order."""
    return [load for load in results[RELAY]["turns"][0]["loads"] if load != HALF]


# --- text -------------------------------------------------------------------------------------
def _text(facts: dict[str, Any], results: Results, source: Path) -> str:
    machine = facts["machine"]
    skipped = ", ".join(facts["skipped"]) or "nobody"
    parts = [
        (
            f"Measured {facts['date']} by `{facts['command']}`: {facts['rounds']} rounds, "
            f"{facts['members']} members, {facts['message_bytes']}-byte messages. "
            f"Machine: {machine['cores']} cores of {machine['cpu']}, kernel {machine['kernel']}, "
            f"{machine['distribution']}, Python {machine['python']}, {machine['openssl']}, "
            f"SQLite {machine['sqlite']}, uvloop {machine['uvloop']}; "
            f"data on {facts['filesystem']}; commit {machine['commit']}. "
            f"Skipped, because not installed: {skipped}. "
            f"All figures: [{source.name}](benchmarks/results/{source.name})."
        ),
        *(f"Failed: {failure}." for failure in facts["failures"]),
        "### Who takes part",
        table(
            ["", "version", "encryption", "durability, delivery", "wire bytes per delivery, 30/s"],
            [_who(name, one) for name, one in results.items()],
        ),
        "### Server CPU per delivery, µs",
        picture("cpu", "Server CPU per delivery by server and load"),
        _costs(results),
        (
            "In brackets: how many times Relay's cost, and (f) how many times the kernel floor's, "
            "where that has the load. † does not keep up with the offered rate. "
            "‡ the load's side was near its limit, so there is no ratio. *tie* with Relay: the "
            "ranges over the rounds meet. Bytes are those on the wire per delivery at the first "
            "load."
        ),
        "### Deliveries per second, saturated",
        _rates(results),
        "### Publish → delivery, ms (p50 / p99)",
        picture("p99", "99th percentile of publish to delivery by server and rate"),
        _delays(results),
        "### Half of the saturated rate: publish → delivery",
        _half(results),
        "### A lone message, ms (p50 / p99)",
        (
            "150 messages, one every 20 ms, on a server without other connections: until a member "
            "has it, and until its publisher is told that it was taken. Only Relay, JetStream and "
            "the AOF have stored it by then."
        ),
        _lone(results),
        "### Connections",
        picture("memory", "Memory per idle connection by server"),
        _connections(results),
    ]
    return "\n\n".join(parts) + "\n"


def _who(name: str, one: dict[str, Any]) -> list[str]:
    return [name, one["version"], one["encryption"], one["durability"], _wire_bytes(one)]


def _wire_bytes(one: dict[str, Any]) -> str:
    load = next(iter(one["turns"][0]["loads"]))
    return _number(figure(one, of_load(load, "bytes_per_delivery")))


def _costs(results: Results) -> str:
    loads = loads_of(results)
    rows = []
    for name, one in results.items():
        row = [f"{name}: {one['durability']}; {_wire_bytes(one)} B"]
        row += [_compared(results, name, load) for load in loads]
        rows.append(row)
    return table(["", *loads], rows)


def _compared(results: Results, name: str, load: str) -> str:
    one, relay, floor = results[name], results[RELAY], results.get(FLOOR)
    pick = of_load(load, "cpu_us_per_delivery")
    mine, theirs = figure(one, pick), figure(relay, pick)
    if mine is None or theirs is None:
        return "–"
    text = _number(mine) + ("" if keeps_up(one, load) else " †")
    if load_bound(one, load) or load_bound(relay, load):
        return text + " ‡"
    ratios = []
    if mine.ties(theirs) and name != RELAY:
        ratios.append("*tie*")
    elif name != RELAY:
        ratios.append(f"{_ratio(mine, theirs)} ×")
    bare = None if floor is None or name == FLOOR else figure(floor, pick)
    if bare is not None and floor is not None and not load_bound(floor, load):
        ratios.append(f"f {_ratio(mine, bare)} ×")
    return f"{text} ({', '.join(ratios)})" if ratios else text


def _rates(results: Results) -> str:
    loads = [load for load in loads_of(results) if load.startswith("saturated")]
    heads = [""]
    for load in loads:
        heads += [f"{load}: per second", "per second of server CPU"]
    rows = []
    for name, one in results.items():
        row = [name]
        for load in loads:
            row.append(_thousands(figure(one, of_load(load, "deliveries_per_s"))))
            row.append(_thousands(figure(one, of_load(load, "deliveries_per_cpu_s"))))
        rows.append(row)
    return table(heads, rows)


def _delays(results: Results) -> str:
    loads = loads_of(results)
    rows = []
    for name, one in results.items():
        row = [name]
        for load in loads:
            p50, p99 = (figure(one, of_load(load, key)) for key in ("p50_us", "p99_us"))
            if p50 is None or p99 is None:
                row.append("–")
                continue
            late = "" if keeps_up(one, load) else " †"
            row.append(f"{_number(_scaled(p50))} / {_number(_scaled(p99))}{late}")
        rows.append(row)
    return table(["", *loads], rows)


def _lone(results: Results) -> str:
    def cell(one: dict[str, Any], what: str) -> str:
        def of(name: str) -> Figure | None:
            return figure(one, lambda turn: turn.get("lone", {}).get(what, {}).get(name))

        median, tail = of("p50_us"), of("p99_us")
        if median is None or tail is None:
            return "–"
        return f"{_number(_scaled(median))} / {_number(_scaled(tail))}"

    rows = [
        [name, cell(one, "delivery"), cell(one, "acknowledgement")]
        for name, one in results.items()
        if any("lone" in turn and turn["lone"] for turn in one["turns"])
    ]
    return table(["", "publish → delivery to one member", "publish → acknowledgement"], rows)


def _half(results: Results) -> str:
    rows = []
    for name, one in results.items():
        rate, p50, p99 = (figure(one, of_load(HALF, key)) for key in ("rate", "p50_us", "p99_us"))
        if rate is None or p50 is None or p99 is None:
            continue
        late = "" if keeps_up(one, HALF) else " †"
        times = [_number(_scaled(each)) for each in (p50, p99)]
        rows.append([name, _number(rate), times[0] + late, times[1] + late])
    return table(["", "messages a second to all members", "p50, ms", "p99, ms"], rows)


def _headline(facts: dict[str, Any], results: Results) -> str:
    """Five lines: where Relay wins and where it loses."""
    loads, members = loads_of(results), facts["members"]
    chosen = {
        f"1 → {members}, 30 msg/s": "30/s, 1 per write",
        f"1 → {members}, 1000 msg/s": "1000/s, 1 per write",
        f"1 → {members}, saturated": "saturated, 1 per write",
        "small rooms": next((load for load in loads if "rooms" in load), ""),
    }
    shown = {name: one for name, one in results.items() if name not in NOT_IN_HEADLINE}
    rows = []
    for title, load in chosen.items():
        title = title if "rooms" not in title else load.replace("/s each", " msg/s each")
        rows.append([f"{title}: server CPU per delivery, µs"])
        for one in shown.values():
            found = figure(one, of_load(load, "cpu_us_per_delivery"))
            rows[-1].append(_number(found) + ("" if found is None or keeps_up(one, load) else " †"))
    memory = [
        _number(figure(one, lambda turn: turn["memory_bytes_per_connection"] / 1024))
        for one in shown.values()
    ]
    rows.append(["memory per idle connection, KiB", *memory])
    machine = facts["machine"]
    return "\n\n".join(
        [
            table(["", *shown], rows),
            picture("cpu", "Server CPU per delivery by server and load", Path("docs")),
            (
                f"Relay encrypts, stores and delivers exactly once; of the others only JetStream "
                f"and the AOF store, and none delivers exactly once. "
                f"† does not keep up. `{facts['command']}`, {facts['date']}, {machine['cores']} "
                f"cores of {machine['cpu']}, load included; versions, ranges, delays and where "
                f"Relay loses: [docs/benchmarks.md](docs/benchmarks.md)."
            ),
        ]
    )


def _connections(results: Results) -> str:
    rows = []
    for name, one in results.items():
        connect = figure(one, lambda turn: turn["connect_us"])
        memory = figure(one, lambda turn: turn["memory_bytes_per_connection"] / 1024)
        other = one.get("connect_p256_us")
        rows.append(
            [name, _number(connect), "–" if other is None else f"{other:,.0f}", _number(memory)]
        )
    heads = [
        "",
        "server CPU to connect and subscribe, RSA-3072, µs",
        "the same, P-256",
        "memory per idle connection, KiB",
    ]
    return table(heads, rows)


def _scaled(found: Figure) -> Figure:
    return Figure(*(value / 1000 for value in found))


def _number(found: Figure | None) -> str:
    if found is None:
        return "–"
    value = found.median
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ratio(one: Figure, other: Figure) -> str:
    """Two significant digits, never in scientific notation."""
    value = float(f"{one.median / other.median:.2g}")
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _thousands(found: Figure | None) -> str:
    return "–" if found is None else f"{found.median / 1000:,.0f} k"


# --- charts -----------------------------------------------------------------------------------
def _draw(results: Results) -> None:
    loads = loads_of(results)
    CHARTS.mkdir(parents=True, exist_ok=True)

    def series(key: str, factor: float = 1.0) -> dict[str, list[Figure | None]]:
        found: dict[str, list[Figure | None]] = {}
        for name, one in results.items():
            figures = [figure(one, of_load(load, key)) for load in loads]
            found[name] = [
                None if each is None else Figure(*(value * factor for value in each))
                for each in figures
            ]
        return found

    charts.grouped(
        CHARTS / "cpu",
        "Server CPU per delivery, 1 → many, 200-byte messages",
        "µs per delivery (log scale, less is better)",
        loads,
        series("cpu_us_per_delivery"),
    )
    charts.grouped(
        CHARTS / "p99",
        "Publish → delivery, 99th percentile",
        "ms (log scale, less is better)",
        loads,
        series("p99_us", 0.001),
    )
    memory = {
        name: figure(one, lambda turn: turn["memory_bytes_per_connection"] / 1024)
        for name, one in results.items()
        if name != FLOOR
    }
    charts.bars(
        CHARTS / "memory",
        "Memory per idle, subscribed connection, all server processes",
        "KiB (less is better)",
        memory,
    )
