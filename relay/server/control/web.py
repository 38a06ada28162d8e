"""The HTTP endpoints of the control process. Loaded with the first connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from relay.server.control import health
from relay.server.control.board_view import BoardView
from relay.server.control.disk import DiskUse
from relay.server.control.exposition import ScoreboardCollector
from relay.server.control.http_server import Handler, HttpServer, Request, Response


def web_server(
    view: BoardView, readiness: health.Readiness, disk: Callable[[], DiskUse]
) -> HttpServer:
    """Return the server of /metrics, /livez, /readyz and /lagz."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ScoreboardCollector(view, disk))

    def metrics(request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # raised by the library if a version is not a number
            encode, content_type = choose_encoder("")
        return Response(200, content_type, encode(registry))

    def answer(ask: Callable[[], health.Answer]) -> Handler:
        def handler(_: Request) -> Response:
            found = ask()
            body = json.dumps(found.document).encode() + b"\n"
            return Response(200 if found.ok else 503, "application/json", body)

        return handler

    now_ns = time.monotonic_ns
    return HttpServer(
        {
            "/metrics": metrics,
            "/livez": answer(health.live),
            "/readyz": answer(lambda: readiness.answer(now_ns())),
            "/lagz": answer(lambda: health.lag(view, disk(), now_ns())),
        }
    )
