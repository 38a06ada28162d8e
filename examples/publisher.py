"""Send each line of the input: python examples/publisher.py relay://FINGERPRINT@HOST:PORT ROOM"""

import sys

from relay import BlockingClient

with BlockingClient(sys.argv[1], name="publisher", register=True) as client:
    for line in sys.stdin:
        client.post(sys.argv[2], line.removesuffix("\n"))  # waits for space in the window only
    client.flush()  # raises the first failure
print("everything is stored")
