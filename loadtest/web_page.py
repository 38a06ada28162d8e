"""What Locust's web page shows of a chat's load: deliveries a second and broken promises.

Locust's own charts know requests alone. Above them stands a panel with charts of our own
(``web_page.js``), and the tab *Promises* has a row for each kind of violation, also for those that
did not happen.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gevent
from flask import Blueprint, Response, jsonify, request

from loadtest import hooks
from loadtest.checks import Violation
from loadtest.measures import VIOLATION
from loadtest.swarm import DELIVERED, PULSE_S, SWARM

if TYPE_CHECKING:
    from locust.env import Environment

POINTS_MAX: Final = 600
"""Seconds that the charts show at most."""
STORED: Final = "publish→stored"
TABLE: Final = "promises"
PREFIX: Final = "relay"
SCRIPT: Final = Path(__file__).with_name("web_page.js")


def kinds() -> list[str]:
    """Return the kinds of violations."""
    return [kind.__name__ for kind in Violation.__subclasses__()]


class Panel:
    """The figures of the panel, taken each second in the process that serves the page."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._points: deque[dict[str, float]] = deque(maxlen=POINTS_MAX)

    def run(self) -> None:
        """Take figures for ever."""
        while True:
            gevent.sleep(PULSE_S)
            self.take()

    def take(self) -> None:
        """Take the figures of now, while a test runs."""
        runner = self._environment.runner
        if runner is None or runner.state not in ("spawning", "running"):
            return
        if self._points and self._points[-1]["began"] != SWARM.began:
            self._points.clear()  # another test
        rate = hooks.per_second
        self._points.append(
            {
                "began": SWARM.began,
                "time": time.monotonic() - SWARM.began,
                "deliveries": rate(self._environment, hooks.DELIVERY, DELIVERED),
                "messages": rate(self._environment, hooks.REQUEST, STORED),
                "violations": SWARM.total.violations,
            }
        )

    def figures(self) -> dict[str, Any]:
        """Return what the script draws."""
        counts = SWARM.total.counts
        return {
            "points": list(self._points),
            "checked": counts["deliveries checked"],
            "violations": SWARM.total.violations,
            "saturated": counts["seconds saturated"],
        }


def promises() -> list[dict[str, object]]:
    """Return the rows of the tab."""
    counts, checked = SWARM.total.counts, SWARM.total.counts["deliveries checked"]
    return [
        {"name": kind, "broken": counts[VIOLATION + kind], "checked": checked} for kind in kinds()
    ]


def extend(environment: Environment, **_: object) -> None:
    """Add panel and tab to the page; Locust calls it."""
    page: Any = environment.web_ui
    if page is None:
        return
    panel = Panel(environment)
    base = (getattr(environment.parsed_options, "web_base_path", None) or "").rstrip("/")
    routes = Blueprint(PREFIX, __name__, url_prefix=f"{base}/{PREFIX}")

    @routes.route("/figures")
    @page.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def figures() -> Response:
        return jsonify(panel.figures())

    @routes.route("/panel.js")
    def script() -> Response:
        return Response(SCRIPT.read_text(encoding="utf-8"), mimetype="text/javascript")

    def add(response: Response) -> Response:
        path = request.path.removeprefix(base)
        if path in ("", "/") and response.mimetype == "text/html":
            text = response.get_data(as_text=True)
            tag = f'<script defer src="{base}/{PREFIX}/panel.js"></script></head>'
            response.set_data(text.replace("</head>", tag, 1))
        elif path == "/stats/requests" and response.is_json:
            found = {**response.get_json(), "extended_stats": [{"key": TABLE, "data": promises()}]}
            response.set_data(jsonify(found).get_data())
        return response

    page.app.register_blueprint(routes)
    page.app.after_request(add)
    page.template_args |= {
        "extended_tabs": [{"title": "Promises", "key": TABLE}],
        "extended_tables": [
            {
                "key": TABLE,
                "structure": [
                    {"key": "name", "title": "Violation"},
                    {"key": "broken", "title": "# broken"},
                    {"key": "checked", "title": "# deliveries checked"},
                ],
            }
        ],
    }
    gevent.spawn(panel.run)
