"""Count the messages of each sender, exactly once over any number of restarts and crashes.

python examples/reader.py relay://FINGERPRINT@HOST:PORT ROOM FILE
"""

import json
import sys
from pathlib import Path
from typing import Any

from relay import BlockingClient, Cursor

file = Path(sys.argv[3])
saved: dict[str, Any] = {"epoch": "00" * 8, "seq": 0, "counts": {}}
if file.exists():
    saved = json.loads(file.read_text())
cursor = Cursor(bytes.fromhex(saved["epoch"]), saved["seq"])
with (
    BlockingClient(sys.argv[1], name="reader", register=True) as client,
    client.room(sys.argv[2], cursor=cursor) as room,
):
    for message in room:
        saved["counts"][message.sender] = saved["counts"].get(message.sender, 0) + 1
        saved["epoch"], saved["seq"] = message.epoch.hex(), message.seq
        new = file.with_suffix(".new")
        new.write_text(json.dumps(saved))
        new.replace(file)  # the counts and the cursor together, or neither
