"""Append every message of a room to a file, once each, over any number of restarts. Plain sockets.

    python examples/archive.py relay://FINGERPRINT@HOST:PORT ROOM FILE [SECONDS]

The file holds one JSON object a line. The last line tells where to go on: there is no other state
that could disagree with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from relay import BlockingClient, Cursor, Gap, Message


def last_cursor(path: Path) -> Cursor:
    """Return where the archive ends. A line cut off by a crash is removed first."""
    if not path.exists():
        return Cursor(bytes(8), 0)
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    if not whole:
        return Cursor(bytes(8), 0)
    row = json.loads(whole.splitlines()[-1])
    return Cursor(bytes.fromhex(row["epoch"]), row["seq"])


def run(address: str, room: str, path: Path, idle_s: float | None) -> None:
    """Archive until nothing has come for ``idle_s`` seconds (None: for ever)."""
    with BlockingClient(address, name="archive", register=True) as client, path.open("a") as file:
        client.join(room, cursor=last_cursor(path))
        for event in client.events(timeout=idle_s):
            if isinstance(event, Message):
                row = {"epoch": event.epoch.hex(), "seq": event.seq, "sender": event.sender}
                row |= {"time_ms": event.time_ms, "text": event.text}
            elif isinstance(event, Gap):
                row = {"epoch": event.end.epoch.hex(), "seq": event.end.seq, "gap": True}
            else:
                continue
            file.write(json.dumps(row) + "\n")
            file.flush()


if __name__ == "__main__":
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else None
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]), seconds)
