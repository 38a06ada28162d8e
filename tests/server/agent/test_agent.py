"""The agent and its client over a real socket with a real key, and as a real process."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from relay.server.agent import client as agent_client
from relay.server.agent import service as agent_service
from relay.server.agent.answer import AgentUnavailable
from relay.server.agent.client import REQUEST_DEADLINE_S, AgentClient
from relay.server.agent.keys import load_or_create_key
from relay.server.agent.protocol import Identity
from relay.server.agent.service import Service
from relay.server.agent.ticket_keys import ROTATE_S, TicketKeyMaker
from relay.server.ticket_register import TicketRegister
from relay.wire.identity import PrivateKey, parse_spki
from relay.wire.tickets import TicketKey
from tests.support.cluster import DEADLINE_S, until
from tests.support.pair import other_key, server_key

KEY = server_key()
PUBLIC = parse_spki(KEY.spki)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides wait as long as a busy machine may need; a test of the deadline sets it itself."""
    monkeypatch.setattr(agent_client, "REQUEST_DEADLINE_S", DEADLINE_S)
    monkeypatch.setattr(agent_service, "WAIT_MAX_S", DEADLINE_S)


class Agent:
    """An agent service in this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unwrap: Callable[[bytes], bytes] = KEY.unwrap
        self.service: Service | None = None
        self.register = TicketRegister()
        self.next_hash = b""
        self.server_id = b""
        """Empty: the first key is the server's key."""
        self.now = 0.0

    def clock(self) -> float:
        """The clock that decides when ticket keys rotate."""
        return self.now

    async def start(self, spki: bytes = KEY.spki) -> Service:
        self.ticket_keys = TicketKeyMaker(self.register.begin, secrets.token_bytes, self.clock)
        self.ticket_keys.rotate()
        listener = socket.socket(socket.AF_UNIX)
        self.path.unlink(missing_ok=True)
        listener.bind(str(self.path))
        self.service = Service(
            lambda ciphertext: self.unwrap(ciphertext),
            Identity(self.server_id or hashlib.sha256(spki).digest(), self.next_hash, spki),
            ticket_keys=self.ticket_keys,
            prove=partial(KEY.prove_next, next_hash=self.next_hash) if self.next_hash else None,
        )
        await self.service.listen(listener)
        return self.service


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path / "agent.sock")
    await agent.start()
    yield agent
    assert agent.service is not None
    agent.service.close()


@pytest.fixture
async def client(agent: Agent) -> AsyncIterator[AgentClient]:
    client = AgentClient(agent.path)
    await client.connect()
    yield client
    client.close()


async def test_unwrap(client: AgentClient) -> None:
    assert client.identity.spki == KEY.spki
    secrets_ = [secrets.token_bytes(32) for _ in range(50)]
    answers = await asyncio.gather(
        *(client.unwrap(PUBLIC.wrap(secret), "192.0.2.1") for secret in secrets_)
    )
    assert answers == secrets_


async def test_a_bad_ciphertext_gives_random_bytes(client: AgentClient) -> None:
    """Implicit rejection: no error, and the same ciphertext never gives the same answer twice."""
    for bad in (bytes(256), b"\xff" * 256, b"x", secrets.token_bytes(256)):
        one, two = await client.unwrap(bad, ""), await client.unwrap(bad, "")
        assert len(one) == len(two) == 32
        assert one != two


async def test_a_storm_is_shed_and_a_guest_is_served(agent: Agent, client: AgentClient) -> None:
    """One source floods; the only request of another source is answered before the flood."""
    gate = threading.Event()

    def slow(ciphertext: bytes) -> bytes:
        gate.wait(DEADLINE_S)
        return ciphertext.ljust(32)

    agent.unwrap = slow
    assert agent.service is not None
    agent.service._service_s = 1.0  # as slow as RSA was measured: the queue is short
    order: list[str] = []

    async def ask(name: str, source: str) -> None:
        try:
            await client.unwrap(name.encode(), source)
            order.append(name)
        except AgentUnavailable:
            order.append("shed")

    storm = [asyncio.create_task(ask(f"s{n}", "192.0.2.1")) for n in range(200)]
    await until(lambda: order.count("shed") >= 160, "the storm is shed")
    guest = asyncio.create_task(ask("guest", "198.51.100.1"))
    await until(lambda: len(agent.service._queue._queues) == 2, "the guest waits")  # type: ignore[union-attr]
    gate.set()
    await asyncio.gather(*storm, guest)
    served = [name for name in order if name != "shed"]
    assert served.index("guest") < 8
    assert len(served) < 45


async def test_a_hung_agent_is_unavailable_within_the_deadline(
    agent: Agent, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_client, "REQUEST_DEADLINE_S", REQUEST_DEADLINE_S)
    gate = threading.Event()
    agent.unwrap = lambda ciphertext: bytes(gate.wait(DEADLINE_S)) or bytes(32)
    # Two at a time: a single request is computed in the loop, and the supervisor sees it hang.
    for outcome in await asyncio.gather(
        client.unwrap(b"x", ""), client.unwrap(b"y", ""), return_exceptions=True
    ):
        assert isinstance(outcome, AgentUnavailable)
        assert "in time" in str(outcome)
    assert agent.service is not None
    await until(lambda: agent.service.stuck, "the agent sees that it is stuck")  # type: ignore[union-attr]
    gate.set()
    await until(lambda: not agent.service.stuck, "and that it is not any more")  # type: ignore[union-attr]
    monkeypatch.setattr(agent_client, "REQUEST_DEADLINE_S", DEADLINE_S)
    agent.unwrap = KEY.unwrap
    assert await client.unwrap(PUBLIC.wrap(bytes(32)), "") == bytes(32)


async def test_a_question_is_asked_again_over_the_next_connection(
    agent: Agent, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_client, "REQUEST_DEADLINE_S", 5.0)  # until it is forgotten
    gate = threading.Event()
    agent.unwrap = lambda ciphertext: bytes(gate.wait(DEADLINE_S)) or bytes(32)
    asked = [client.unwrap(PUBLIC.wrap(b"s" * 32), "") for _ in range(3)]
    given_up = asked.pop()
    given_up.cancel()
    assert client._link is not None
    assert client._link._transport is not None
    first = client._link
    agent.unwrap = KEY.unwrap
    client._link._transport.abort()
    gate.set()
    assert await asyncio.gather(*asked) == [b"s" * 32] * 2
    assert client._link is not first
    assert not client._link._pending
    await until(lambda: not client._questions, "the questions to be forgotten")


async def test_another_key_is_not_taken(agent: Agent, client: AgentClient) -> None:
    await _replace(agent, client, other_key().spki)
    with pytest.raises(AgentUnavailable, match="key has changed"):
        await client.unwrap(b"x", "")


async def test_another_id_is_not_taken(agent: Agent, client: AgentClient) -> None:
    """Accounts belong to one server id: workers with two ids would mix them."""
    agent.server_id = b"another".ljust(32)
    await _replace(agent, client, KEY.spki)
    with pytest.raises(AgentUnavailable, match="key has changed"):
        await client.unwrap(b"x", "")


async def test_another_key_is_looked_at_once_and_for_who_asks(
    agent: Agent, client: AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each change and not in a loop, which every worker of a server would run."""
    await _replace(agent, client, other_key().spki)
    assert agent.service is not None
    connected: list[object] = []
    take = agent.service.connected

    def connect(connection: Any) -> None:  # noqa: ANN401  # private to the service
        connected.append(connection)
        take(connection)

    monkeypatch.setattr(agent.service, "connected", connect)
    for _ in range(3):
        with pytest.raises(AgentUnavailable, match="key has changed"):
            await client.unwrap(PUBLIC.wrap(bytes(32)), "")
    other = AgentClient(agent.path)
    await other.connect()
    for _ in range(100):  # the first key would have come back by now
        await other.unwrap(PUBLIC.wrap(bytes(32)), "")
    other.close()
    assert len(connected) <= 1 + 3 + 1


async def test_ticket_keys_are_pushed_and_follow_the_agent(
    agent: Agent, client: AgentClient
) -> None:
    """At the start, at each rotation, and by the next agent, without a request."""
    pushed: list[list[TicketKey]] = []
    client.follow_ticket_keys(pushed.append)
    await until(lambda: len(pushed[-1]) == 1, "the first key")
    assert agent.service is not None
    agent.service.rotate_ticket_keys()
    agent.now = ROTATE_S
    agent.service.rotate_ticket_keys()
    await until(lambda: len(pushed[-1]) == 2, "the second one")
    assert [key.generation for key in pushed[-1]] == [1, 2]
    assert pushed[-1] == agent.ticket_keys.keys
    await _replace(agent, client, KEY.spki)
    await until(lambda: [key.generation for key in pushed[-1]] == [3], "the next agent's")
    assert "secret of 32 bytes" in repr(pushed[-1])


async def test_the_next_key_is_proved_by_its_agent_alone(agent: Agent, client: AgentClient) -> None:
    """An announced key is only proved by the next agent, which has it; without one there is no
    proof.
    """
    told: list[bytes] = []
    client.on_next_key = told.append
    with pytest.raises(AgentUnavailable, match="busy"):
        await client.prove(PUBLIC.challenge(bytes(32)), "")
    agent.next_hash = b"n" * 32
    await _replace(agent, client, KEY.spki)
    await until(lambda: told, "the announcement")
    assert told == [agent.next_hash]
    secret = secrets.token_bytes(32)
    proof = await client.prove(PUBLIC.challenge(secret), "192.0.2.1")
    assert proof == PUBLIC.next_key_proof(secret, agent.next_hash)
    assert await client.unwrap(PUBLIC.wrap(secret), "") == secret
    for bad in (b"x", bytes(256), PUBLIC.wrap(secret)):
        assert await client.prove(bad, "") != await client.prove(bad, "")
    agent.next_hash = b""
    await _replace(agent, client, KEY.spki)
    await until(lambda: len(told) == 2, "the withdrawal")
    assert told[1] == b""


async def _replace(agent: Agent, client: AgentClient, spki: bytes) -> None:
    assert agent.service is not None
    assert client._link is not None
    agent.service.close()
    transport = client._link._transport
    assert transport is not None
    transport.abort()
    await until(lambda: client._link is not None and client._link.lost, "the link is lost")
    await agent.start(spki)


async def test_closed_client(client: AgentClient) -> None:
    client.close()
    with pytest.raises(AgentUnavailable):
        await client.unwrap(b"x", "")


async def test_nobody_listens(tmp_path: Path) -> None:
    client = AgentClient(tmp_path / "nobody.sock")
    with pytest.raises(AgentUnavailable, match="cannot be reached"):
        await client.connect(deadline_s=0.1)
    client.close()


async def test_garbage_ends_only_its_own_connection(agent: Agent, client: AgentClient) -> None:
    for garbage in (b"\0\0", b"\xff" * 100, b"\0\x05\x02\0\0\0\1"):
        reader, writer = await asyncio.open_unix_connection(str(agent.path))
        writer.write(garbage)
        await reader.read()  # to the end: the agent has closed the connection
        writer.close()
    assert await client.unwrap(PUBLIC.wrap(bytes(32)), "") == bytes(32)


def test_the_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    first = load_or_create_key(path, 2048)
    assert first.spki == load_or_create_key(path, 2048).spki
    assert isinstance(first, PrivateKey)
    assert b"PRIVATE" not in repr(first).encode()


PROGRAM = """
import os, sys
from pathlib import Path
from relay.server.agent.main import agent_main
from relay.server.boot_report import BootReport, booted
from relay.server.context import AgentContext
from relay.server.metrics import AGENT
from relay.server.system.inherited_secret import InheritedSecret
from relay.server.settings.live import LiveSettings
from relay.server.keys.passphrase import PassphraseSource
from relay.server.privileges import Separation
from relay.server.scoreboard import Scoreboard
from relay.server.ticket_register import TicketRegister
from relay.settings import Server, Settings
directory = Path(sys.argv[1])
boot = BootReport(1)
sys.exit(booted(boot, lambda: agent_main(AgentContext(
    live=LiveSettings(Settings(server=Server(key_bits=2048))),
    socket_path=directory / "agent.sock",
    key_path=directory / "server.key", scoreboard=Scoreboard(1, AGENT),
    expected_fingerprint=sys.argv[2], tickets=TicketRegister(), passphrase=PassphraseSource(""),
    ticket_keys=InheritedSecret("keys"), new_identity=False, separation=Separation(),
    parent_fd=0, boot=boot,
))))
"""


def agent_process(
    directory: Path, fingerprint: str = "", stderr: int | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory), fingerprint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().rstrip("\n")


async def test_kill_the_agent_under_a_client(tmp_path: Path) -> None:
    """A request whose connection is lost is answered by the next agent, with the same key."""
    with agent_process(tmp_path) as first:
        word, fingerprint = first_line(first).split()
        assert word == "R"
        client = AgentClient(tmp_path / "agent.sock")
        await client.connect()
        public = parse_spki(client.identity.spki)
        assert public.fingerprint == fingerprint
        secret = secrets.token_bytes(32)
        assert await client.unwrap(public.wrap(secret), "") == secret
        first.kill()
        first.wait()
    with agent_process(tmp_path, fingerprint) as second:
        assert await asyncio.to_thread(first_line, second) == f"R {fingerprint}"
        assert await client.unwrap(public.wrap(secret), "") == secret
        client.close()
        second.terminate()
        assert second.wait(DEADLINE_S) == 0


async def test_a_socket_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """New clients reach the agent although its socket was removed."""
    with agent_process(tmp_path) as process:
        first_line(process)
        path = tmp_path / "agent.sock"
        open_files = psutil.Process(process.pid).num_fds()
        path.unlink()
        client = AgentClient(path)
        await client.connect()
        assert path.stat().st_mode & 0o777 == 0o600
        client.close()
        await until(
            lambda: psutil.Process(process.pid).num_fds() == open_files, "the old one to be closed"
        )
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    assert not path.exists()


async def test_a_socket_that_cannot_be_made_again_ends_nothing(tmp_path: Path) -> None:
    """The error is logged, and connected clients are still answered."""
    with agent_process(tmp_path, stderr=subprocess.PIPE) as process:
        first_line(process)
        path = tmp_path / "agent.sock"
        client = AgentClient(path)
        await client.connect()
        path.unlink()
        path.mkdir()
        assert process.stderr is not None
        told = await asyncio.to_thread(process.stderr.readline)
        while b"agent_socket_failed" not in told:
            assert told, "the agent has exited"
            told = await asyncio.to_thread(process.stderr.readline)
        secret = secrets.token_bytes(32)
        public = parse_spki(client.identity.spki)
        assert await client.unwrap(public.wrap(secret), "") == secret
        client.close()
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    assert path.is_dir()


def test_a_key_that_was_removed_is_not_made_anew(tmp_path: Path) -> None:
    """Another key would be another server, also after the next restart."""
    with agent_process(tmp_path) as process:
        _, fingerprint = first_line(process).split()
        process.terminate()
    key = tmp_path / "server.key"
    kept = key.read_bytes()
    key.unlink()
    with agent_process(tmp_path, fingerprint) as process:
        assert first_line(process).startswith(f"E key file {key} has been removed")
        assert process.wait(DEADLINE_S) == 3
    assert not key.exists()
    key.touch(0o600)
    key.write_bytes(kept)
    with agent_process(tmp_path, fingerprint) as process:
        assert first_line(process) == f"R {fingerprint}"
        process.terminate()


def test_the_agent_leaves_with_the_supervisor(tmp_path: Path) -> None:
    with agent_process(tmp_path) as process:
        first_line(process)
        assert process.stdin is not None
        process.stdin.close()  # as when the supervisor dies
        assert process.wait(DEADLINE_S) == 0


def test_the_agent_says_why_it_cannot(tmp_path: Path) -> None:
    with agent_process(tmp_path) as process:
        first_line(process)
        process.terminate()
    with agent_process(tmp_path, "another") as process:
        assert "is not the key that this server started with" in first_line(process)
        assert process.wait(DEADLINE_S) == 3
    key = tmp_path / "server.key"
    key.chmod(0o644)
    with agent_process(tmp_path) as process:
        assert first_line(process).startswith(f"E key file {key} is open to others (mode 0644)")
        assert process.wait(DEADLINE_S) == 3
    key.unlink()
    key.touch(0o600)
    key.write_text("-----BEGIN NONSENSE-----\n")
    with agent_process(tmp_path) as process:
        assert first_line(process) == f"E key file {key}: the file is not a PEM private key"
        assert process.wait(DEADLINE_S) == 3


def test_nothing_that_it_runs_has_more_rights_than_it(tmp_path: Path) -> None:
    with agent_process(tmp_path) as process:
        first_line(process)
        assert "NoNewPrivs:\t1" in Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()


def test_a_reason_that_names_a_path_that_is_no_text(tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"\xff")
    directory.mkdir()
    key = directory / "server.key"
    key.touch(0o644)
    with agent_process(directory) as process:
        assert first_line(process).startswith(f"E key file {tmp_path}/\\udcff/server.key is open")
        assert process.wait(DEADLINE_S) == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_another_user_is_refused(tmp_path: Path) -> None:
    """The directory is open to all, and still only our own uid is answered."""
    with agent_process(tmp_path) as process:
        first_line(process)
        for parent in [tmp_path, *tmp_path.parents[:3]]:
            parent.chmod(parent.stat().st_mode | 0o055)
        (tmp_path / "agent.sock").chmod(0o666)
        script = (
            "import os, socket, sys; os.setuid(12345); s = socket.socket(socket.AF_UNIX);"
            f"s.connect({str(tmp_path / 'agent.sock')!r}); sys.exit(len(s.recv(10)))"
        )
        ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
        assert ended.returncode == 0, ended.stderr
        process.terminate()


async def test_an_agent_of_another_user_is_no_agent(tmp_path: Path) -> None:
    """A worker accepts ticket keys from, and sends ciphertexts to, its own agent only."""
    with agent_process(tmp_path) as process:
        first_line(process)
        path = tmp_path / "agent.sock"
        ours = AgentClient(path)
        await ours.connect()
        ours.close()
        stranger = AgentClient(path, os.geteuid() + 1)
        given: list[TicketKey] = []
        stranger.follow_ticket_keys(given.extend)
        with pytest.raises(AgentUnavailable):
            await stranger.connect(deadline_s=1.0)
        assert not given
        stranger.close()
        process.terminate()


def test_its_memory_is_closed() -> None:
    """No core file, and no ptrace by processes of the same user."""
    script = (
        "import ctypes\nfrom relay.server.system import prctl\nprctl.forbid_inspection()\n"
        "raise SystemExit(10 + ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 10
