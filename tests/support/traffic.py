"""A writer and a reader of some rooms, while a test does something to their relay."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from relay import BlockingClient
from relay.client.events import Gap, Message
from tests.support.cluster import Relay, wait_until

PAUSE_S = 0.01
"""Between two messages to all rooms: as fast as it can, it would hold up what is done."""
ROOMS = ("lobby", "kitchen", "attic", "cellar", "garden")


class Traffic:
    """Writes numbers to all rooms and reads them; afterwards each was read once, in order."""

    def __init__(self, relay: Relay) -> None:
        self._address = relay.address
        self._done, self._written = threading.Event(), threading.Event()
        self.read: dict[str, list[int]] = {room: [] for room in ROOMS}
        self.failures: list[BaseException] = []
        self.sent = 0
        self.resumed = {"writer": 0, "reader": 0}
        """How often each has come back by ticket."""
        self._threads = [
            threading.Thread(target=self._guard, args=(run,), daemon=True)
            for run in (self._write, self._read)
        ]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        self.goes_on("at first")
        return self

    def goes_on(self, when: str) -> None:
        """Wait until messages that are sent from now on have been read in all rooms."""
        sent = self.sent
        wait_until(
            lambda: self.failures or all(read and read[-1] > sent for read in self.read.values()),
            f"messages in all rooms {when}",
        )
        assert not self.failures

    def _guard(self, run: Any) -> None:  # noqa: ANN401
        try:
            run()
        except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
            self.failures.append(error)

    def _write(self) -> None:
        with BlockingClient(self._address, name="writer") as client:
            for number in itertools.count(1):
                for room in ROOMS:
                    client.post(room, str(number))
                client.flush()
                self.resumed["writer"] = client.statistics["resumptions"]
                self.sent = number
                if self._done.wait(PAUSE_S):
                    self._written.set()
                    return

    def _read(self) -> None:
        with BlockingClient(self._address, name="reader") as client:
            for room in ROOMS:
                client.join(room, since=0)
            while not self._written.is_set() or any(
                not read or read[-1] != self.sent for read in self.read.values()
            ):
                event = client.next_event(0.1)
                self.resumed["reader"] = client.statistics["resumptions"]
                assert not isinstance(event, Gap), event
                if isinstance(event, Message):
                    self.read[event.room].append(int(event.body))

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not self.failures
        for room, read in self.read.items():
            assert read == list(range(1, self.sent + 1)), room
