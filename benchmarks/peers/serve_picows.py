"""The peer ``picows``, on uvloop: each message sent to each member in turn.

python serve_picows.py PORT CERTIFICATE KEY
"""

from __future__ import annotations

import ssl
import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

members: set[WSTransport] = set()


class Member(WSListener):  # type: ignore[misc,unused-ignore]
    """Only listens."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """From now on it gets everything."""
        members.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """It is gone."""
        members.discard(transport)


class Publisher(WSListener):  # type: ignore[misc,unused-ignore]
    """What it says goes to all members."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Pass it on."""
        if frame.msg_type == WSMsgType.BINARY:
            message = frame.get_payload_as_bytes()
            for member in members:
                member.send(WSMsgType.BINARY, message)


def listener(request: WSUpgradeRequest) -> WSListener:
    """Tell the publisher from the members."""
    return Publisher() if request.path == b"/publish" else Member()


async def main(port: int, certificate: str, key: str) -> None:
    """Serve for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    server = await ws_create_server(listener, "127.0.0.1", port, ssl=context, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
