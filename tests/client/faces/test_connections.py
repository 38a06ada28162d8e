"""How connections begin, are lost and are restored, with both clients."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.client.address import Address, parse_address
from relay.client.blocking import BlockingClient
from relay.client.closes import Replaced
from relay.client.devices.device_key import DeviceKey
from relay.client.devices.key_files import KeyFiles
from relay.client.dialling import dial_tcp
from relay.client.errors import (
    ClientClosed,
    ClientError,
    ConnectFailed,
    ConnectionLost,
    HandshakeFailed,
    NoDeviceKey,
    ServerKeyMismatch,
    UnknownServerKey,
)
from relay.client.events import Message, State, StateChanged
from relay.client.refusals import KeyRefused, LooksAlike, NameInvalid, NameTaken
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from tests.client.faces.adapters import Face
from tests.support.cluster import Relay
from tests.support.threads import beside

Connect = Callable[..., Face]


def bare(relay: Relay) -> str:
    """The address without its fingerprint."""
    return str(parse_address(relay.address)._replace(fingerprint=None))


def drain(face: Face) -> None:
    """Take events until there are no more."""
    while face.next() is not None:
        pass


def test_an_unknown_key_and_nobody_to_ask(face: Connect, relay: Relay, tmp_path: Path) -> None:
    """An error with the fingerprint, and nothing is pinned."""
    one = face(bare(relay), "unknown-a")
    with pytest.raises(UnknownServerKey) as caught:
        one.connect()
    assert caught.value.fingerprint == parse_address(relay.address).fingerprint
    assert not (tmp_path / "known_servers").exists()


def test_trust_on_first_use(face: Connect, relay: Relay, tmp_path: Path) -> None:
    """Asked once, with the full fingerprint; then the pin is enough."""
    known = KnownServers(tmp_path / "pins")
    asked: list[str] = []

    def yes(address: object, fingerprint: str) -> bool:
        asked.append(fingerprint)
        return True

    one = face(bare(relay), "tofu-a", key_policy=KeyPolicy(known, yes))
    one.connect()
    one.close()
    assert asked == [parse_address(relay.address).fingerprint]
    again = face(bare(relay), "tofu-a", key_policy=KeyPolicy(known))
    again.connect()
    assert again.client.server_fingerprint == asked[0]


@pytest.mark.parametrize("answer", [False, None])
def test_no_is_no(face: Connect, relay: Relay, tmp_path: Path, answer: bool) -> None:
    """Nothing is pinned. No answer does not count as yes."""
    known = KnownServers(tmp_path / "pins")
    one = face(bare(relay), "no-a", key_policy=KeyPolicy(known, lambda *_: answer))
    with pytest.raises(UnknownServerKey, match="not accepted"):
        one.connect()
    assert not known.path.exists()


@pytest.mark.parametrize("answer", ["no", 1])
def test_an_answer_that_is_none(
    face: Connect, relay: Relay, tmp_path: Path, answer: object
) -> None:
    """A typed "no" is a non-empty string: it must not count as yes."""
    known = KnownServers(tmp_path / "pins")
    policy = KeyPolicy(known, lambda *_: answer)  # type: ignore[arg-type]
    one = face(bare(relay), "no-a", key_policy=policy)
    with pytest.raises(TypeError, match="answers with a bool"):
        one.connect()
    assert not known.path.exists()


def test_a_changed_key_is_refused(face: Connect, relay: Relay, tmp_path: Path) -> None:
    """By the pin and by the address; no question; the file is not changed."""
    known = KnownServers(tmp_path / "pins")
    address = parse_address(relay.address)
    known.pin(address.host, address.port, "a" * 52)
    before = known.path.read_bytes()
    policy = KeyPolicy(known, lambda *_: True)
    for target in (bare(relay), str(address._replace(fingerprint="b" * 51 + "a"))):
        one = face(target, "changed-a", key_policy=policy)
        with pytest.raises(ServerKeyMismatch) as caught:
            one.connect()
        assert caught.value.fingerprint == address.fingerprint
        assert one.client.state is State.CLOSED
    assert known.path.read_bytes() == before


def test_a_key_that_no_server_has_accepted_stays_nowhere(
    face: Connect, relay: Relay, tmp_path: Path, room: str
) -> None:
    """Whatever the reason; and an unexpected server key is reported before anything else."""
    keys = KeyFiles(tmp_path / "keys")
    policy = KeyPolicy(KnownServers(tmp_path / "pins"), keys=keys)
    wrong = str(parse_address(relay.address)._replace(fingerprint="b" * 51 + "a"))
    mine = room[-16:].strip("-")
    face(relay.address, mine, key_policy=policy, register=True).connect()
    for target, name, register, error in (
        (wrong, "unheard", False, ServerKeyMismatch),
        (wrong, "unheard", True, ServerKeyMismatch),
        (relay.address, "unheard", False, NoDeviceKey),
        (relay.address, mine.replace("-", ""), True, LooksAlike),
        (relay.address, "admin", True, NameInvalid),
    ):
        one = face(target, name, key_policy=policy, register=register)
        with pytest.raises(error):
            one.connect()
    assert [path.stem for path in keys.directory.glob("*/*.key")] == [mine]
    assert keys.servers() == [parse_address(relay.address).fingerprint]


def test_a_closed_client_stays_closed(connect: Connect) -> None:
    one = connect("closed-a")
    one.close()
    with pytest.raises(ClientClosed):
        one.connect()


def test_names_that_are_refused(connect: Connect) -> None:
    """Illegal, reserved, another user's, in use by another guest."""
    connect("names-a")
    with pytest.raises(NameTaken):
        connect("names-a", key=DeviceKey.generate(), register=True)
    with pytest.raises(KeyRefused):
        connect("names-a", key=DeviceKey.generate())
    with pytest.raises(LooksAlike):
        connect("narnes-a")
    connect("~names-a")
    with pytest.raises(NameTaken):
        connect("~names-a")
    with pytest.raises(NameInvalid):
        connect("-")
    with pytest.raises(NameInvalid):
        connect("admin")


def test_a_second_connection_of_one_instance_replaces_the_first(connect: Connect) -> None:
    """The first one ends with Replaced, and does not reconnect."""
    first = connect("replaced-a")
    second = connect("replaced-a", identity=first.client.identity)
    with pytest.raises(Replaced):
        drain(first)
    assert first.client.state is State.CLOSED
    assert second.client.state is State.ONLINE


def test_nothing_listens(face: Connect) -> None:
    """An error at once, in one line with the address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        one = face(f"relay://127.0.0.1:{port}", "nobody-a")
        with pytest.raises(ConnectFailed, match=str(port)):
            one.connect()
    with pytest.raises(ClientError):
        one.send("room", "x")


def test_what_listens_is_no_relay(face: Connect) -> None:
    """Its first bytes are not ServerHello: an error of the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = face(f"relay://127.0.0.1:{listener.getsockname()[1]}", "web-a")

        def answer(*_: object) -> None:
            peer, _address = listener.accept()
            with peer:
                peer.sendall(b"220 mail.example ESMTP\r\n")

        with beside(answer), pytest.raises(HandshakeFailed):
            one.connect()


def test_killed_workers(face: Connect, tmp_path: Path) -> None:
    """Sends and reading go on after two kill -9: each message once, in order, without a gap."""
    with Relay(tmp_path / "data") as relay:
        sender = face(relay.address, "killed-a", window=64)
        reader = face(relay.address, "killed-b")
        for one in (sender, reader):
            one.connect()
        reader.join("room")
        outcomes = []
        for n in range(600):
            outcomes.append(sender.post("room", f"m{n}"))
            if n in (200, 400):
                relay.kill_worker()
        sender.flush()
        assert [outcome().seq for outcome in outcomes] == list(range(2, 602))
        found: list[str] = []
        seen: list[State] = []
        while len(found) < 600:
            event = reader.next()
            assert event is not None, len(found)
            if isinstance(event, Message):
                found.append(event.text)
            elif isinstance(event, StateChanged):
                seen.append(event.state)
        assert found == [f"m{n}" for n in range(600)]
        assert State.WAITING in seen
        assert seen[-1] is State.ONLINE
        assert sender.client.statistics["logins"] >= 2


def test_without_reconnect_a_lost_connection_is_the_end(face: Connect, tmp_path: Path) -> None:
    """Calls that wait for an answer raise the error, and so does the iterator."""
    with Relay(tmp_path / "data") as relay:
        one = face(relay.address, "once-a", reconnect=False)
        one.connect()
        one.send("room", "x")
        relay.kill_worker()
        with pytest.raises(ConnectionLost):
            drain(one)
        with pytest.raises(ConnectionLost):
            one.send("room", "y")


def test_a_stopped_server_says_why(face: Connect, tmp_path: Path) -> None:
    """The event's text has GOING_AWAY; the client waits, and close ends that."""
    with Relay(tmp_path / "data") as relay:
        one = face(relay.address, "away-a")
        one.connect()
        os.kill(relay.pid, signal.SIGTERM)
        while not isinstance(event := one.next(), StateChanged) or event.state is not State.WAITING:
            assert event is not None
        assert "GOING_AWAY" in event.detail
        one.close()
        assert one.client.state is State.CLOSED


@pytest.mark.skipif(not hasattr(os, "set_blocking"), reason="the system has no such flag")
def test_a_flag_that_somebody_else_sets_is_no_lost_connection(relay: Relay, room: str) -> None:
    """O_NONBLOCK belongs to the open file, which other processes may have inherited."""

    def dial(address: Address, timeout_s: float) -> socket.socket:
        opened = dial_tcp(address, timeout_s)
        opened.setblocking(False)
        return opened

    with BlockingClient(relay.address, name="flags-a", dial=dial) as client:
        opened = client._pump._socket
        assert opened is not None
        client.join(room)
        for number in range(20):
            os.set_blocking(opened.fileno(), bool(number % 2))
            client.post(room, f"m{number}")
            os.set_blocking(opened.fileno(), bool(number % 3))
            client.flush()
        os.set_blocking(opened.fileno(), False)
        said = (event.text for event in client.events(60) if isinstance(event, Message))
        texts = list(itertools.islice(said, 20))
        assert texts == [f"m{number}" for number in range(20)]
        assert client.statistics["logins"] == 1
