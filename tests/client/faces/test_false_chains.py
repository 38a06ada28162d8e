"""A compromised server over a real socket: it forges, forks and rolls back device chains.

It holds the server's key, so the connection is valid; but it cannot sign links.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from relay.chat.accounts import chain, links
from relay.chat.accounts.links import Kind
from relay.client.events import DeviceWarning, Message
from relay.wire import envelopes as wire
from relay.wire.device_keys import PrivateDeviceKey, verify
from tests.client.faces.adapters import WAIT_S, AioFace, Face
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
"""A link signed by a thief of the phone, beside the known chain."""
FORGED = [*TWO, longer(TWO, Kind.ADD, THIEF, PHONE, THIEF)[-1][:-1] + b"\0"]


def script(
    messages: list[tuple[PrivateDeviceKey, list[bytes]]],
) -> Callable[[FakeConnection], None]:
    """Messages of alice by device, and the chain that is shown when the client asks."""

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


def shows(
    messages: list[PrivateDeviceKey], packed: list[bytes], *, answers: bool = True
) -> Callable[[FakeConnection], None]:
    """Messages of alice by device, in the room and in its history; always the same chain."""

    def run(connection: FakeConnection) -> None:
        connection.log_in()
        entries = [
            wire.EntryMessage(
                "lobby", EPOCH, seq, seq - 1, 1, "alice", links.key_id(device.public), b"p" * 16,
                seq, 0, "text/plain", b"hi",
            )
            for seq, device in enumerate(messages, 1)
        ]  # fmt: skip
        with contextlib.suppress(OSError):
            while connection.read():
                heard, connection.heard = connection.heard, []
                for asked in heard:
                    if isinstance(asked, wire.Join):
                        connection.send_envelopes(
                            wire.Joined(
                                asked.request, "lobby", EPOCH, asked.seq, EPOCH, len(entries)
                            ),
                            *entries[asked.seq :],
                        )
                    elif isinstance(asked, wire.Devices) and answers:
                        connection.send_envelopes(wire.Chain(asked.request, "alice", packed, True))
                    elif isinstance(asked, wire.Devices):
                        return
                    elif isinstance(asked, wire.History):
                        connection.send_envelopes(
                            wire.Page(asked.request, "lobby", 1, True, entries)
                        )

    return run


def warnings(face: Face, count: int) -> Iterator[str]:
    """Take events until so many warnings have come; messages are delivered in any case."""
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
    """After an honest first contact."""
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


def doubts(face: Face, count: int) -> list[str]:
    """Return how the next messages, so many, are marked."""
    found: list[str] = []
    while len(found) < count:
        event = face.next(WAIT_S)
        assert event is not None, "no message"
        if isinstance(event, Message):
            found.append(event.doubt)
    return found


def called(face: Face, name: str, *args: object) -> Any:  # noqa: ANN401
    """Call a method of either client."""
    result = getattr(face.client, name)(*args)
    return face._run(result) if isinstance(face, AioFace) else result


@pytest.mark.parametrize(
    ("device", "packed", "output"),
    [
        (THIEF, STOLEN, "contradicts"),
        (THIEF, begun(THIEF), "begun anew"),
        (PHONE, ONE, "lost, or hides"),
    ],
    ids=["forked", "anew", "rolled-back"],
)
def test_what_contradicts_is_marked_until_a_person_accepts_it(
    face: Connect, device: PrivateDeviceKey, packed: list[bytes], output: str
) -> None:
    """Every message, in every program, including the first; only what was shown is accepted."""
    false = shows([device, device], packed)
    scripts = iter([shows([PHONE], TWO), false, false, false, shows([PHONE, LAPTOP], TWO)])
    with FakeServer(lambda connection: next(scripts)(connection)) as server, ExitStack() as ends:

        def program() -> Face:
            one = face(server.address, "reader")
            ends.callback(one.close)
            one.connect()
            one.join("lobby")
            return one

        one = program()
        assert doubts(one, 1) == [""]
        called(one, "devices", "alice")
        one.close()
        one = program()
        assert all(output in doubt for doubt in doubts(one, 2))
        one.close()
        one = program()
        page = one.history("lobby")
        assert all(output in entry.doubt for entry in page.entries)
        change = called(one, "device_change", "alice")
        assert output in change.detail
        known, shown = (chain.read(some, verify)[-1].pin for some in (TWO, packed))
        assert (tuple(change.before), tuple(change.now)) == (tuple(known), tuple(shown))
        called(one, "accept_devices", change)
        assert called(one, "device_change", "alice") is None
        assert doubts(one, 2) == ["", ""]
        one.close()
        one = program()
        assert doubts(one, 2) == ["", ""]
        one.close()
        if output != "lost, or hides":
            one = program()
            assert all(doubts(one, 2)), "the other one is doubtful now"
            one.close()


def test_a_server_that_hangs_up_instead_of_an_answer_proves_nothing(face: Connect) -> None:
    scripts = iter([shows([PHONE], TWO), shows([THIEF], TWO, answers=False), shows([], STOLEN)])
    with FakeServer(lambda connection: next(scripts)(connection)) as server:
        one = face(server.address, "reader")
        one.connect()
        one.join("lobby")
        assert doubts(one, 1) == [""]
        called(one, "devices", "alice")
        one.close()
        one = face(server.address, "reader")
        one.connect()
        one.join("lobby")
        assert doubts(one, 1) != [""]
        assert "contradicts" in next(warnings(one, 1))
        one.close()
