"""A compromised server, or one restored from a backup, that shows an older list of devices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from relay import Client
from relay.chat.accounts import links
from relay.client.devices.device_key import DeviceKey, public_text
from relay.client.devices.key_files import KeyFiles
from relay.client.errors import DeviceChainError
from relay.client.events import DeviceWarning
from relay.client.trust.known_servers import KnownServers
from relay.client.trust.policy import KeyPolicy
from relay.server.worker.connection.requests import devices
from relay.wire.identity import fingerprint
from tests.support.pair import server_key
from tests.support.workers import Cluster


async def warned(client: Client) -> DeviceWarning:
    async with asyncio.timeout(30):
        while not isinstance(event := await anext(client.events()), DeviceWarning):
            pass
    return event


async def test_nobody_signs_on_top_of_a_list_that_hides_a_removal(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the owner's own signature would add the thief's device again."""
    server_id = fingerprint(server_key().spki)
    address = f"relay://{server_id}@127.0.0.1:{cluster.workers[0].port}"

    def client(name: str) -> Client:
        home = tmp_path / name
        policy = KeyPolicy(KnownServers(home / "known"), keys=KeyFiles(home / "keys"))
        return Client(address, name=name, register=True, key_policy=policy)

    stolen, new = DeviceKey.generate(), DeviceKey.generate()
    async with client("alice") as alice:
        await alice.add_device(stolen)
        await alice.remove_device(public_text(stolen.public))
    kept = KeyFiles(tmp_path / "alice" / "keys").chain(server_id, "alice")
    kinds = [links.parse(link).body.kind for link in kept]
    assert kinds == [links.Kind.ROOT, links.Kind.ADD, links.Kind.REMOVE], "her own links are kept"
    async with client("bob") as bob:
        assert [one.removed for one in (await bob.devices("alice")).devices] == [False, True]

    true_chain = devices.chain_of
    monkeypatch.setattr(devices, "chain_of", lambda session, name: true_chain(session, name)[:2])
    async with client("alice") as alice:
        for attempt in (
            lambda: alice.approve_device(public_text(new.public)),
            lambda: alice.add_device(new),
            alice.add_recovery_key,
            alice.devices,
        ):
            with pytest.raises(DeviceChainError, match="hides"):
                await attempt()
    for _ in range(2):  # in each program, as long as the server hides it
        async with client("bob") as bob:
            await bob.devices("alice")
            assert "hides" in (await warned(bob)).detail

    monkeypatch.setattr(devices, "chain_of", true_chain)
    async with client("alice") as alice:
        await alice.add_device(new)
        assert len((await alice.devices()).devices) == 3
