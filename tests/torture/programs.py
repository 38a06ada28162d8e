"""Shared by the client programs of a run: their identities, what they send, how they reconnect."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from relay import limits
from relay.chat.entries import Kind
from relay.client import backoff
from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from relay.client.errors import ClientError
from relay.client.events import LogEntry, State, StateChanged
from relay.client.identity import Identity
from relay.wire.envelopes import EntryMessage
from tests.torture.records import Connection, Lost, Recorder, Totals

RETRY_S = 0.2
BACKOFF_S_MAX = 1.0
"""Instead of 20 s: clients are to come back soon, repeatedly."""
SHORT_BYTES = 1500
LONG_BYTES = 16_000
LONG_IN = 50
"""One message in so many is a long one."""


class Role(NamedTuple):
    """The parameters of a client program's command line."""

    address: str
    name: str
    history: Path
    logs: list[str]
    seed: int
    option: str


def parse_role(argv: list[str] | None = None) -> Role:
    """Read the command line that ``cast`` writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("history", type=Path)
    parser.add_argument("logs")
    parser.add_argument("seed", type=int)
    parser.add_argument("option")
    given = parser.parse_args(argv)
    # Device keys of this run; the first process of a name claims it.
    os.environ["RELAY_KEYS"] = str(given.history.parent / "keys")
    os.environ["RELAY_REGISTER"] = "1"
    return Role(
        given.address, given.name, given.history, given.logs.split(","), given.seed, given.option
    )


def identity_of(role: Role, counters: dict[str, int] | None = None) -> Identity:
    """Return the instance of a client of this name, the same in every one of its processes."""
    secret = blake2b(
        f"secret {role.seed} {role.name}".encode(), digest_size=limits.INSTANCE_SECRET_BYTES
    ).digest()
    if not counters:
        return Identity(secret)
    return Identity(secret, counters, _account_file(role).read_bytes())


def _account_file(role: Role) -> Path:
    return role.history.with_suffix(".account")


def _note_account(role: Role, identity: Identity) -> None:
    """Record the account before any message is sent: a restarted program needs it."""
    file = _account_file(role)
    if not file.exists():
        partial = file.with_suffix(".new")
        partial.write_bytes(identity.account)
        partial.replace(file)


def body_of(name: str, log: str, number: int, seed: int) -> bytes:
    """Return the body of a sender's message: the same one whenever it is sent again."""
    chance = random.Random(f"{seed} {name} {log} {number}")
    longest = LONG_BYTES if chance.randrange(LONG_IN) == 0 else SHORT_BYTES
    head = f"{name} {log} {number} ".encode()
    return head + chance.randbytes(chance.randrange(longest)).hex().encode()[:longest]


def people_of(option: str) -> list[str]:
    """Return the users to whom a sender writes direct messages, by its options."""
    return next((part[3:].split(".") for part in option.split("+") if part[:3] == "to="), [])


def recipient(people: Sequence[str], number: int) -> str:
    """Return for whom the direct message with this number is."""
    return people[number % len(people)]


def number_of(entry: EntryMessage | LogEntry) -> int:
    """Return a sender's own number of an entry; 0: the server has written it.

    It is the counter as well, but not for a copy in an inbox, and not where the server has lost the
    counters before it.
    """
    return 0 if entry.kind == Kind.SYSTEM else int(entry.body.split(b" ", 3)[2])


def digest_of(body: bytes) -> int:
    """Return the digest of a body for the records."""
    return zlib.crc32(body)


def hasten() -> None:
    """Make clients reconnect soon."""
    backoff.MAX_S = BACKOFF_S_MAX  # type: ignore[misc]


async def connect(role: Role, recorder: Recorder, counters: dict[str, int] | None = None) -> Client:
    """Connect for the first time in this process, with retries."""
    while True:
        identity = identity_of(role, counters)
        client = Client(role.address, name=role.name, identity=identity)
        try:
            await client.connect()
        except ClientError as error:
            _note_failed(recorder, error)
            await asyncio.sleep(RETRY_S)
        else:
            _note_account(role, client.identity)
            return client


def connect_blocking(
    role: Role, recorder: Recorder, counters: dict[str, int] | None = None
) -> BlockingClient:
    """As ``connect``."""
    while True:
        identity = identity_of(role, counters)
        client = BlockingClient(role.address, name=role.name, identity=identity)
        try:
            client.connect()
        except ClientError as error:
            _note_failed(recorder, error)
            time.sleep(RETRY_S)
        else:
            _note_account(role, client.identity)
            return client


def _note_failed(recorder: Recorder, error: ClientError) -> None:
    # A program's first attempt is final for the library; these programs retry.
    recorder.write(Connection("failed", f"{type(error).__name__}: {error}"))


def note_state(recorder: Recorder, event: StateChanged) -> None:
    """Record that a connection was established or lost."""
    recorder.write(Connection(event.state.value, event.detail))
    if event.state is State.CLOSED and event.detail:
        recorder.write(Lost(event.detail))


def note_totals(recorder: Recorder, statistics: dict[str, int]) -> None:
    """Record the library's counters before a client is dropped."""
    recorder.write(Totals(**statistics))
