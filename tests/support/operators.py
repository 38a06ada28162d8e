"""A user who is an operator, as stored: homes believe nothing else."""

from __future__ import annotations

import secrets

from relay.chat.accounts import invitation
from relay.wire.envelopes import Welcome
from tests.support.devices import hello, register
from tests.support.workers import Cluster, TestClient, Worker


async def an_operator(
    cluster: Cluster, name: str = "opera", worker: Worker | None = None
) -> TestClient:
    """A user who becomes operator by an invitation in the data directory.

    ``worker``: that it connects to; None: the first one.
    """
    token = secrets.token_bytes(32)
    for each in cluster.workers.values():
        each.parts.home.accounts.logs._first = invitation.hash_of(token)
    client = await TestClient.connect(worker or cluster.workers[0])
    client.name, client.secret = name, secrets.token_bytes(16)
    client.send_envelopes(
        register(client.connection, client.spki, name, token=token),
        hello(client.connection, client.spki, name, client.secret),
    )
    await client.expect(Welcome)
    return client
