from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from loadtest.socket_watch import GOOD, Network, WatchedSocket, dial_watched
from relay.client.address import Address
from tests.support.cluster import DEADLINE_S


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def connect(
    listener: socket.socket, network: Network = GOOD
) -> tuple[WatchedSocket, socket.socket]:
    address = Address("127.0.0.1", listener.getsockname()[1])
    watched = dial_watched(address, DEADLINE_S, network)
    peer, _ = listener.accept()
    peer.settimeout(DEADLINE_S)
    return watched, peer


def read_all(peer: socket.socket) -> bytes:
    """Everything up to the end, or the reset."""
    parts = []
    while True:
        try:
            data = peer.recv(1000)
        except ConnectionResetError:
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def test_it_stamps_and_counts(listener: socket.socket) -> None:
    watched, peer = connect(listener)
    with watched, peer:
        assert watched.received_ns == watched.dialled_ns
        watched.sendall(b"one")
        watched.sendall(b"two")
        watched.sendall(b"three")
        assert len(watched.writes_ns) == 2
        peer.sendall(b"answer")
        assert watched.recv(100) == b"answer"
        assert watched.bytes_in == 6
        assert watched.dialled_ns < watched.writes_ns[0] <= watched.writes_ns[1]
        assert watched.writes_ns[1] < watched.received_ns


def test_a_cut_comes_in_the_middle_of_what_is_sent(listener: socket.socket) -> None:
    watched, peer = connect(listener, Network(cut_after=10))
    with watched, peer:
        watched.sendall(b"123456")
        with pytest.raises(ConnectionResetError):
            watched.sendall(b"789012")
        assert b"1234567890".startswith(read_all(peer))


def test_a_cut_comes_in_the_middle_of_what_is_received(listener: socket.socket) -> None:
    watched, peer = connect(listener, Network(cut_after=4))
    with watched, peer:
        peer.sendall(b"123456")
        received = watched.recv(100)
        assert received == b"1234"
        assert read_all(watched) == b""
        assert read_all(peer) == b""


def test_a_cut_of_the_next_answer(listener: socket.socket) -> None:
    watched, peer = connect(listener)
    with watched, peer:
        watched.cut_answer_after = 2
        watched.sendall(b"question")
        assert peer.recv(100) == b"question"
        peer.sendall(b"answer")
        assert watched.recv(100) == b"an"
        assert read_all(watched) == b""


def test_a_slow_reader_takes_little_at_a_time(listener: socket.socket) -> None:
    watched, peer = connect(listener, Network(bytes_per_s=50_000.0))
    with watched, peer:
        peer.sendall(bytes(10_000))
        assert len(watched.recv(10_000)) <= 5000


def test_a_source_address_of_ones_own(listener: socket.socket) -> None:
    watched, peer = connect(listener, Network(source="127.0.0.9"))
    with watched, peer:
        assert peer.getpeername()[0] == "127.0.0.9"
