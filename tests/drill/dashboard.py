"""``python -m tests.drill.dashboard PICTURE``: the panels of the dashboard, from a real run.

A swarm chats, the steps of the drill run, and a real Prometheus scrapes the relay each second. Then
each panel's own queries are run and drawn. Needs ``prometheus`` (of the distribution) and
matplotlib (requirements/peers.txt).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.drill.server import Server
from tests.drill.steps import STEPS, WORKERS
from tests.drill.swarm import Swarm
from tests.support.throwaway import throwaway_keys

ROOT: Final = Path(__file__).parents[2]
DASHBOARD: Final = ROOT / "deploy" / "grafana-dashboard.json"
RULES: Final = ROOT / "deploy" / "prometheus-alerts.yaml"
SCRAPE_S: Final = 1
RATE_OVER_S: Final = 5
"""Grafana's ``$__rate_interval`` is four scrapes and one."""
START_S: Final = 60.0
COLUMNS: Final = 3
PANEL_INCHES: Final = (5.2, 2.3)
LINES_MAX: Final = 8
SCALE: Final = {"s": (1000, "ms"), "bytes": (1e-6, "MB"), "percentunit": (100, "%")}
"""By Grafana's unit: factor and name in the picture."""
MARKED: Final = {
    "`relay ctl restart`": "rolling restart",
    "workers 2 → 4": "2 → 4 workers",
    "workers 4 → 2": "4 → 2",
    "kill -9 of a worker": "kill -9 of a worker",
    "kill -9 of the key agent": "kill -9 of the key agent",
    "`relay ctl upgrade` (USR2)": "upgrade",
}
"""The steps of the run, as the picture labels them."""


@contextmanager
def prometheus(target: str, directory: Path) -> Iterator[str]:
    """Run a Prometheus that scrapes one address; yield its own, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "scrape_configs": [{"job_name": "relay", "static_configs": [{"targets": [target]}]}],
        "rule_files": [str(RULES)],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON, which is YAML
    with (directory / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((directory / "prometheus.log").read_text()) from None
                time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


def ask(address: str, expression: str, start: float, end: float) -> list[dict[str, Any]]:
    """Return the series that Prometheus has for an expression of the dashboard."""
    query = {
        "query": expression.replace("$__rate_interval", f"{RATE_OVER_S}s"),
        "start": f"{start:.3f}",
        "end": f"{end:.3f}",
        "step": str(SCRAPE_S),
    }
    url = f"http://{address}/api/v1/query_range?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=START_S) as answer:  # our own address
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def legend(form: str, labels: dict[str, str]) -> str:
    """Return a series' name, as Grafana formats it with the panel's template."""
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), form)


def draw(path: Path, address: str, start: float, end: float, moments: dict[str, float]) -> int:
    """Draw every panel; return how many have a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = json.loads(DASHBOARD.read_text())["panels"]
    rows = -(-len(panels) // COLUMNS)
    size = (PANEL_INCHES[0] * COLUMNS, PANEL_INCHES[1] * rows)
    figure, grid = pyplot.subplots(rows, COLUMNS, figsize=size, layout="constrained")
    drawn = 0
    for axes, panel in zip(grid.flat, panels, strict=False):
        unit = panel["fieldConfig"]["defaults"]["unit"]
        factor, name = SCALE.get(unit, (1, "a second" if unit == "cps" else ""))
        found = [
            (legend(target["legendFormat"], series["metric"]), series["values"])
            for target in panel["targets"]
            for series in ask(address, target["expr"], start, end)
        ]
        if unit == "s" and max((float(v) for _, vs in found for _, v in vs), default=0) > 1:
            factor, name = 1, "s"
        for number, (label, values) in enumerate(found):
            axes.plot(
                [float(at) - start for at, _ in values],
                [float(value) * factor for _, value in values],
                linewidth=1,
                label=label if number < LINES_MAX else None,
            )
        axes.set_title(f"{panel['title']}{f', {name}' if name else ''}", fontsize=9, loc="left")
        axes.set_xlim(0, end - start)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        for at in moments.values():
            axes.axvline(at - start, color="#999999", linewidth=0.6, linestyle=":")
        if found:
            axes.legend(fontsize=6, framealpha=0.6, edgecolor="none", loc="best")
            drawn += 1
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    steps = ", ".join(f"{name} at {at - start:.0f} s" for name, at in moments.items())
    figure.suptitle(f"Dotted lines: {steps}", fontsize=9)
    figure.savefig(path, dpi=80)
    return drawn


async def run(directory: Path, picture: Path, seconds: float) -> int:
    """Run the steps, and draw."""
    moments = {}
    with Server(directory, WORKERS, {"control.bind": "127.0.0.1:0"}) as server:
        (starting,) = server.relay.events("starting")
        async with Swarm(
            server.relay.address, writers=10, readers=20, rooms=8, rate=200.0
        ) as swarm:
            assert await swarm.caught_up()
            with prometheus(str(starting["control"]), directory) as address:
                start = time.time()
                await asyncio.sleep(seconds)
                for name, short in MARKED.items():
                    swarm.begin_window()
                    moments[short] = time.time()
                    await STEPS[name](server, seconds)
                    await server.whole(4 if "→ 4" in name else WORKERS)
                    await asyncio.sleep(seconds)
                end = time.time()
                drawn = await asyncio.to_thread(draw, picture, address, start, end, moments)
            whole = await swarm.finish()
    print(f"{drawn} panels with lines, {end - start:.0f} s, into {picture}")
    return 0 if whole else 1


def main() -> int:
    """Draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.dashboard")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0, help="after each step")
    given = parser.parse_args()
    if shutil.which("prometheus") is None:
        print("no prometheus: apt install prometheus", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="relay-dashboard-") as directory:
        return asyncio.run(run(Path(directory), given.picture.absolute(), given.seconds))


if __name__ == "__main__":
    with throwaway_keys():
        sys.exit(main())
