"""The blocking client under gevent: several greenlets on one client, in a process of their own."""

from __future__ import annotations

import importlib.util

import pytest

from tests.support.cluster import Relay
from tests.support.programs import run_program
from tests.support.silent import SilentHost

needs_gevent = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent comes with the load tests"
)
"""Detected without an import: it must never share a process with the other tests."""

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import sys, gevent
from relay.client.blocking import BlockingClient
from relay.client.events import Message

with BlockingClient(sys.argv[1], name="greenlets", window=16) as client:
    client.join("greenlets")
    texts = []

    def read():
        for event in client.events():
            if isinstance(event, Message):
                texts.append(event.text)
                if len(texts) == 400:
                    return

    def send(task):
        return [client.send("greenlets", f"{task} {n}").seq for n in range(40)]

    reader = gevent.spawn(read)
    senders = [gevent.spawn(send, task) for task in range(10)]
    gevent.joinall([reader, *senders], timeout=60, raise_error=True)
    seqs = [sender.value for sender in senders]
    assert all(own == sorted(own) for own in seqs), seqs
    assert sorted(sum(seqs, [])) == list(range(2, 402))
    for task in range(10):
        assert [t for t in texts if t.split()[0] == str(task)] == [f"{task} {n}" for n in range(40)]
    print("fine", len(texts))
"""


@needs_gevent
def test_greenlets_share_a_client(relay: Relay) -> None:
    """One reads for all; each gets its own answers, in its own order."""
    done = run_program(PROGRAM, relay.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine 400\n"


RACING = """
from gevent import monkey; monkey.patch_all()
import socket, sys, gevent
from relay.client.address import parse_address
from relay.client.blocking import BlockingClient

real = socket.getaddrinfo
def look_up(host, port, *args, **options):
    if host != "several.example":
        return real(host, port, *args, **options)
    if options.get("flags", 0) & socket.AI_NUMERICHOST:
        raise socket.gaierror(socket.EAI_NONAME, "not an address")
    return [row for one in ("127.0.0.2", "127.0.0.1")
            for row in real(one, port, type=socket.SOCK_STREAM)]
socket.getaddrinfo = look_up

turns = 0
def turn():
    global turns
    while True:
        turns += 1
        gevent.sleep(0.005)

gevent.spawn(turn)
address = parse_address(sys.argv[1])._replace(host="several.example")
with BlockingClient(address, name="racing") as client:
    assert turns > 1, turns
    assert client.send("racing", "x").seq
print("fine")
"""


@needs_gevent
def test_addresses_are_raced_and_others_run_meanwhile(relay: Relay) -> None:
    """The first address does not answer."""
    with SilentHost("127.0.0.2", relay.port):
        done = run_program(RACING, relay.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"
