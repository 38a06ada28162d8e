"""A taken-over server over a real socket: it forges, forks and takes back what devices signed.

It holds the server's key, so nothing of the connection is wrong; what it cannot do is sign links.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.chat.accounts import chain, links
from relay.chat.accounts.links import Kind
from relay.client.events import DeviceWarning, Message
from relay.wire import envelopes as wire
from relay.wire.device_keys import PrivateDeviceKey, verify
from tests.client.faces.adapters import WAIT_S, Face
from tests.support.fake_server import FakeConnection, FakeServer
from tests.support.pair import server_key
from tests.vectors.accounts import key, signed

Connect = Callable[..., Face]
EPOCH = b"epoch..8"
PHONE, LAPTOP, THIEF = (key(label) for label in "abc")


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RELAY_KEYS", str(tmp_path / "keys"))


def begun(owner: PrivateDeviceKey, name: str = "alice", nonce: bytes = b"n" * 16) -> list[bytes]:
    server_id = hashlib.sha256(server_key().spki).digest()
    return [signed(chain.root_body(server_id, name, nonce, owner.public), owner)]


def longer(
    packed: list[bytes], kind: Kind, subject: PrivateDeviceKey, *by: PrivateDeviceKey
) -> list[bytes]:
    body = chain.read(packed, verify)[-1].next_body(kind, subject.public, by[0].public)
    return [*packed, signed(body, *by)]


ONE = begun(PHONE)
TWO = longer(ONE, Kind.ADD, LAPTOP, PHONE, LAPTOP)
THREE = longer(TWO, Kind.REMOVE, PHONE, LAPTOP)
STOLEN = longer(ONE, Kind.ADD, THIEF, PHONE, THIEF)
"""What a thief of the phone would sign beside the chain that everybody knows."""
FORGED = [*TWO, longer(TWO, Kind.ADD, THIEF, PHONE, THIEF)[-1][:-1] + b"\0"]


def script(
    messages: list[tuple[PrivateDeviceKey, list[bytes]]],
) -> Callable[[FakeConnection], None]:
    """Messages of alice, each of a device, and the chain that is shown when it is asked for."""

    def run(connection: FakeConnection) -> None:
        connection.log_in()
        join = connection.wait_for(wire.Join)
        connection.send_envelopes(
            wire.Joined(join.request, "lobby", EPOCH, 0, EPOCH, 0), wire.Live("lobby", EPOCH, 0)
        )
        for seq, (device, packed) in enumerate(messages, 1):
            key_id = links.key_id(device.public)
            connection.send_envelopes(
                wire.EntryMessage(
                    "lobby", EPOCH, seq, seq - 1, 1, "alice", key_id, b"p" * 16, seq, 0,
                    "text/plain", b"hi",
                )
            )  # fmt: skip
            asked = connection.wait_for(wire.Devices)
            connection.send_envelopes(wire.Chain(asked.request, "alice", packed, True))
        connection.read_to_end()

    return run


def warnings(face: Face, count: int) -> Iterator[str]:
    """Take events until so many warnings have come; the messages come in any case."""
    while count:
        event = face.next(WAIT_S)
        assert event is not None, "no warning"
        if isinstance(event, DeviceWarning):
            count -= 1
            yield event.detail
        else:
            assert not isinstance(event, Message) or event.text == "hi"


@pytest.mark.parametrize(
    ("device", "packed", "output"),
    [
        (THIEF, STOLEN, "contradicts"),
        (THIEF, FORGED, "false list"),
        (THIEF, TWO, "not one of their devices"),
        (THIEF, begun(THIEF), "begun anew"),
        (THIEF, begun(THIEF, "carol"), "somebody else's"),
        (THIEF, ONE, "lost, or hides"),
        (THIEF, [], "does not exist"),
    ],
    ids=["forked", "forged", "stranger", "anew", "another", "rolled-back", "none"],
)
def test_a_false_device_is_loud(
    face: Connect, device: PrivateDeviceKey, packed: list[bytes], output: str
) -> None:
    """After a first contact that was honest."""
    with FakeServer(script([(PHONE, TWO), (device, packed)])) as server:
        one = face(server.address, "reader")
        one.connect()
        one.join("lobby")
        assert output in next(warnings(one, 1))
        one.close()


def test_a_new_device_that_is_proved_is_silent(face: Connect) -> None:
    with FakeServer(script([(PHONE, TWO), (LAPTOP, THREE)])) as server:
        one = face(server.address, "reader")
        one.connect()
        one.join("lobby")
        for _ in range(2):
            while not isinstance(event := one.next(WAIT_S), Message):
                assert event is not None
                assert not isinstance(event, DeviceWarning)
        one.close()
