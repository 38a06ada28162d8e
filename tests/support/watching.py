"""Requests of a monitoring system to a relay's control process."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import DEADLINE_S, Relay, wait_until

ON_A_FREE_PORT = {"control.bind": "127.0.0.1:0"}
"""The setting of a relay that is watched."""


class Watcher:
    """Asks over HTTP, each time anew."""

    def __init__(self, relay: Relay) -> None:
        self.address: str = relay.events("starting")[-1]["control"]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return the status and the body."""
        connection = self._connection()
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the document."""
        status, body = self.get(path)
        return status, json.loads(body)

    def answers(self, path: str, status: int, **members: object) -> bool:
        """Return whether this is the status now, and these are members of the document."""
        found, document = self.ask(path)
        return found == status and members.items() <= document.items()

    def sees(self, path: str, status: int, **members: object) -> None:
        """Wait for an answer: on a busy machine a heartbeat may be late, which is a reason, too."""
        wait_until(
            lambda: self.answers(path, status, **members), f"{path}: {status} {members or ''}"
        )

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Return every value, by name and values of the labels."""
        status, body = self.get("/metrics")
        assert status == 200
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }

    def total(self, name: str, *labels: str) -> float:
        """Return the sum of a metric's values, or of those with these labels."""
        found = [
            value
            for (sample, given), value in self.samples().items()
            if sample == name and given[: len(labels)] == labels
        ]
        assert found, name
        return sum(found)

    def counts(self, count: float, name: str, *labels: str) -> None:
        """Wait until a metric's ``total`` is this."""
        wait_until(lambda: self.total(name, *labels) == count, f"{name} {labels} to be {count}")

    def _connection(self) -> http.client.HTTPConnection:
        if not self.address.startswith("unix:"):
            return http.client.HTTPConnection(self.address, timeout=DEADLINE_S)
        connection = http.client.HTTPConnection("relay", timeout=DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(Path(self.address.removeprefix("unix:"))))
        return connection
