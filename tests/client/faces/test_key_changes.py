"""Servers whose key changes, honest and malicious, over real sockets and with both clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relay.client.aio import Client
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import (
    HandshakeFailed,
    ServerIdentityError,
    ServerKeyMismatch,
    UnknownServerKey,
)
from relay.client.events import State, StateChanged
from relay.client.file_lock import locked
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.wire.envelopes import Ack, Done, NextKey, Prove, Send
from relay.wire.identity import PrivateKey, fingerprint, parse_spki
from tests.client.faces.adapters import WAIT_S, Face
from tests.support.fake_server import FakeConnection, FakeServer, spki_hash
from tests.support.pair import other_key, server_key

Connect = Callable[..., Face]
OLD, NEW = fingerprint(server_key().spki), fingerprint(other_key().spki)
HONEST = (server_key(), server_key())
CHANGED = (other_key(), other_key())


class Server:
    """Serves one connection after the other: which key each shows and holds, and what it
    announces.
    """

    def __init__(
        self,
        *keys: tuple[PrivateKey, PrivateKey],
        proof: Callable[[Prove], bytes] | None = None,
    ) -> None:
        self._keys = keys
        self._proof = proof
        self.heard: list[int] = []
        """Bytes received on each connection."""
        self.logins = 0

    def keys(self, number: int) -> tuple[PrivateKey, PrivateKey]:
        return self._keys[min(number, len(self._keys)) - 1]

    def script(self, connection: FakeConnection) -> None:
        try:
            connection.log_in()
            self.logins += 1
            if self._proof is not None and self.logins == 1:
                connection.send_envelopes(NextKey(spki_hash(other_key())))
                asked = connection.wait_for(Prove)
                connection.send_envelopes(Done(asked.request, self._proof(asked)))
                connection.close_and_reset(1001)
            else:
                connection.read_to_end()
        finally:
            self.heard.append(connection.bytes_heard)


def proved(asked: Prove) -> bytes:
    return server_key().prove_next(asked.challenge, spki_hash(other_key()))


def by_itself(asked: Prove) -> bytes:
    """The announced key proves itself, with the public part of the other one."""
    del asked
    return parse_spki(server_key().spki).next_key_proof(bytes(32), spki_hash(other_key()))


def of_another_key(asked: Prove) -> bytes:
    """The agent is asked, and proves the key that it announces itself."""
    return server_key().prove_next(asked.challenge, bytes(32))


@pytest.fixture
def policy(tmp_path: Path) -> KeyPolicy:
    return KeyPolicy(KnownServers(tmp_path / "known"), keys=KeyFiles(tmp_path / "keys"))


def online_again(one: Face) -> None:
    """Take events until the client has reconnected after a loss."""
    states: list[State] = []
    while states[-2:] != [State.CONNECTING, State.ONLINE] or State.WAITING not in states:
        event = one.next(WAIT_S)
        assert event is not None
        if isinstance(event, StateChanged):
            states.append(event.state)
            assert event.state is not State.CLOSED, event.detail


def ended(one: Face) -> str:
    while True:
        event = one.next(WAIT_S)
        if isinstance(event, StateChanged) and event.state is State.CLOSED:
            return event.detail


def test_a_proved_change_is_followed_and_there_is_no_way_back(
    face: Connect, policy: KeyPolicy
) -> None:
    """The old key, stolen or from a backup, gets no byte, now and later."""
    server = Server(HONEST, CHANGED, HONEST, proof=proved)
    with FakeServer(server.script, keys=server.keys) as running:
        one = face(running.address, "alice", key_policy=policy)
        one.connect()
        online_again(one)
        assert one.client.server_fingerprint == NEW
        assert one.client.server_id == OLD
        one.close()
        later = face(running.address, "alice", key_policy=policy)
        with pytest.raises(ServerKeyMismatch):
            later.connect()
    assert server.logins == 2
    assert server.heard[2:] == [0]


@pytest.mark.parametrize("proof", [by_itself, of_another_key, lambda _: b"", lambda _: bytes(32)])
def test_a_change_that_was_announced_and_not_proved_is_refused(
    face: Connect, policy: KeyPolicy, proof: Callable[[Prove], bytes]
) -> None:
    """A compromised worker announces a key of its own."""
    server = Server(HONEST, CHANGED, proof=proof)
    with FakeServer(server.script, keys=server.keys) as running:
        one = face(running.address, "alice", key_policy=policy)
        one.connect()
        assert "CHANGED" in ended(one)
    assert server.heard[1:] == [0]
    assert not policy.known.lineage().following


def test_who_shows_the_announced_key_and_does_not_hold_it_changes_nothing(
    face: Connect, policy: KeyPolicy
) -> None:
    """A public key is public: the old one stays valid until the new one has proved itself."""
    server = Server(HONEST, (other_key(), server_key()), HONEST, proof=proved)
    with FakeServer(server.script, keys=server.keys) as running:
        one = face(running.address, "alice", key_policy=policy)
        one.connect()
        online_again(one)
        assert one.client.server_fingerprint == OLD
        one.close()
        assert policy.known.lineage().following == {OLD: NEW}
        assert not policy.known.lineage().followed
    assert server.logins == 2


def test_who_shows_a_key_and_does_not_hold_it_is_no_server(face: Connect) -> None:
    server = Server((server_key(), other_key()))
    with FakeServer(server.script, keys=server.keys) as running, pytest.raises(HandshakeFailed):
        face(running.address, "alice").connect()
    assert server.logins == 0


def test_an_unknown_server_gets_not_one_byte(face: Connect, policy: KeyPolicy) -> None:
    """Until a user has accepted its key."""
    server = Server(HONEST)
    with FakeServer(server.script, keys=server.keys) as running:
        address = running.address.replace(f"{OLD}@", "")
        with pytest.raises(UnknownServerKey):
            face(address, "alice", key_policy=policy).connect()
    assert server.heard == [0]


def test_an_id_that_belongs_to_a_known_server_gets_no_login(
    face: Connect, policy: KeyPolicy
) -> None:
    """Another server claims the id of a known one: it gets no name and no key."""
    policy.known.pin("elsewhere.example", 7475, OLD)
    server = Server(CHANGED)
    with FakeServer(server.script, keys=server.keys) as running:
        address = running.address.replace(OLD, NEW)
        with pytest.raises(ServerIdentityError):
            face(address, "alice", key_policy=policy).connect()
    assert server.logins == 0


def test_an_announcement_stays_with_the_files(face: Connect, policy: KeyPolicy) -> None:
    """A client that was told, and offline at the change, follows it as well."""
    server = Server(HONEST, CHANGED, proof=proved)
    with FakeServer(server.script, keys=server.keys) as running:
        one = face(running.address, "alice", key_policy=policy, reconnect=False)
        one.connect()
        ended(one)
        one.close()  # it is written in a thread
        again = face(running.address, "alice", key_policy=policy)
        again.connect()
        assert again.client.server_id == OLD
        assert policy.known.lineage().followed == {OLD: NEW}
        again.close()
    assert server.logins == 2


async def test_a_loop_does_not_wait_for_a_lock(tmp_path: Path) -> None:
    """Of another program, on the file where an asyncio client stores proved keys."""
    file = tmp_path / "known_servers"
    file.touch()

    def script(connection: FakeConnection) -> None:
        connection.log_in()
        sent = connection.wait_for(Send)
        connection.send_envelopes(NextKey(spki_hash(other_key())))
        asked = connection.wait_for(Prove)
        ack = Ack("room", sent.counter, b"e" * 8, 1)
        connection.send_envelopes(Done(asked.request, proved(asked)), ack)
        connection.read_to_end()

    with FakeServer(script) as running, file.open("rb") as other:
        client = Client(running.address, key_policy=KeyPolicy(KnownServers(file)))
        await client.connect()
        with locked(other.fileno(), shared=False, timeout_s=0) as held:
            assert held
            await client.send("room", "x")
            assert not file.read_bytes()
        await client.close()
    assert NEW in file.read_text()
