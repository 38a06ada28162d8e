"""A key made before the server's id was known, while another program learns the id."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.client.devices.device_key import DeviceKey
from relay.client.trust.known_servers import KnownServers
from relay.wire.codes import CloseCode, ErrorCode
from relay.wire.envelopes import Done, Enrol, Error, Hello
from relay.wire.identity import fingerprint
from tests.support.cluster import run_relay
from tests.support.fake_server import FakeConnection, FakeServer
from tests.support.pair import other_key, server_key

ID, CHANGED = fingerprint(server_key().spki), fingerprint(other_key().spki)
REGISTER, REQUEST = ("register", "--passphrase"), ("device", "request")


def run(
    tmp_path: Path,
    command: tuple[str, ...],
    script: Callable[[FakeConnection], None],
    kept: dict[str, DeviceKey],
) -> tuple[int, str]:
    """Run a command at a server whose key was changed; return its exit code and output.

    Another program stores the server's id, and keys under it, during the first connection.
    """
    secret = tmp_path / "secret"
    secret.write_text("x\n")
    secret.chmod(0o600)
    known = tmp_path / "known"

    def another_program_first(connection: FakeConnection) -> None:
        if server.accepted == 1:
            KnownServers(known).followed(ID, CHANGED)
            for name, key in kept.items():
                key.save(tmp_path / "keys" / ID / name)
        script(connection)

    env = {"RELAY_KEYS": str(tmp_path / "keys"), "RELAY_KEY_PASSPHRASE": str(secret)}
    keys = other_key(), other_key()
    with FakeServer(another_program_first, keys=lambda _: keys) as server:
        address = server.address.replace(ID, CHANGED)
        options = ["--name", "bob", "--known-servers", str(known)]
        ended = run_relay(*command, address, *options, env=env)
    return ended.returncode, ended.stdout + ended.stderr


def register(connection: FakeConnection) -> None:
    connection.log_in()
    connection.read_to_end()


def approve(connection: FakeConnection) -> None:
    connection.flush()
    asked = connection.wait_for(Enrol)
    connection.send_envelopes(Done(asked.request, b""))
    connection.log_in()
    connection.read_to_end()


def paths(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path / "keys")) for path in tmp_path.rglob("*.key*"))


def test_a_refused_name_costs_no_key_that_another_program_has_registered(tmp_path: Path) -> None:
    other = DeviceKey.generate()

    def script(connection: FakeConnection) -> None:
        connection.flush()
        connection.wait_for(Hello)
        connection.send_envelopes(Error(0, int(ErrorCode.NAME_TAKEN), 0, ""))
        connection.wire.close(CloseCode.NAME_REFUSED, time.monotonic())
        connection.flush()
        connection.read_to_end()

    code, output = run(tmp_path, REGISTER, script, {"bob.key": other})
    assert (code, "belongs to somebody else" in output) == (1, True), output
    assert DeviceKey.load(tmp_path / "keys" / ID / "bob.key").public == other.public
    assert paths(tmp_path) == [f"{ID}/bob.key"], "its own key, for another user's name, is gone"


@pytest.mark.parametrize(("command", "script"), [(REGISTER, register), (REQUEST, approve)])
def test_a_key_is_where_the_next_command_looks(
    tmp_path: Path, command: tuple[str, ...], script: Callable[[FakeConnection], None]
) -> None:
    code, output = run(tmp_path, command, script, {"carol.key": DeviceKey.generate()})
    assert code == 0, output
    assert paths(tmp_path) == [f"{ID}/bob.key", f"{ID}/carol.key"]
    assert f"{ID}/bob.key" in "".join(output.split())


def test_an_approved_key_takes_no_other_ones_place(tmp_path: Path) -> None:
    """Another program has registered the name, and another one requests a key, meanwhile."""
    keys = {name: DeviceKey.generate() for name in ("bob.key", "bob.key.requested")}
    code, output = run(tmp_path, REQUEST, approve, keys)
    assert code == 0, output
    for name, key in keys.items():
        assert DeviceKey.load(tmp_path / "keys" / ID / name).public == key.public
    assert paths(tmp_path) == sorted(
        [f"{CHANGED}/bob.key.requested", *(f"{ID}/{name}" for name in keys)]
    )
    assert f"{CHANGED}/bob.key.requested" in "".join(output.split()), "the path that exists"
