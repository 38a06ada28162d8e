"""The log at the end of a run, read in two ways: from the store's files, and by a new client."""

from __future__ import annotations

import asyncio
from pathlib import Path

from relay.chat.entries import NO_EPOCH
from relay.chat.partition import PARTITIONS, partition_of
from relay.client.aio import Client
from relay.client.events import Gap, Message, RoomChanged
from relay.limits import U63_MAX
from relay.store.file.directory import DataDirectory
from relay.store.file.schema import connect_reader, rows
from relay.store.reading.reader import SqliteReader
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import unpack_entry
from tests.torture.checker import Entry
from tests.torture.programs import digest_of, number_of

PAGE_BYTES = 1_000_000
FETCH_S = 60.0


def entry_of(entry: EntryMessage | Message | RoomChanged) -> Entry:
    """Return an entry as the checker represents it."""
    epoch = entry.epoch.hex()
    number = 0 if isinstance(entry, RoomChanged) else number_of(entry)
    if isinstance(entry, RoomChanged) or not number:
        return Entry(epoch, entry.seq, entry.prev, entry.sender, 0, 0)
    return Entry(epoch, entry.seq, entry.prev, entry.sender, number, digest_of(entry.body))


def pending(data: Path) -> int:
    """Return how many direct messages are accepted and not confirmed as delivered."""
    found = 0
    for index in range(PARTITIONS):
        connection = connect_reader(DataDirectory(data).partition_path(index))
        if connection is not None:
            found += rows(connection, "SELECT count(*) FROM pending")[0][0]
            connection.close()
    return found


def read_store(data: Path, log: str) -> list[Entry]:
    """Read all of a log from its partition's file."""
    reader = SqliteReader(DataDirectory(data).partition_path(partition_of(log)))
    try:
        entries: list[Entry] = []
        while True:
            after = entries[-1].seq if entries else 0
            page = reader.read(log, after, U63_MAX, PAGE_BYTES)
            entries += [entry_of(unpack_entry(packed)) for _, packed in page.rows]
            if page.end:
                return entries
    finally:
        reader.close()


def read_head(data: Path, log: str) -> tuple[str, int]:
    """Read (epoch, seq) of a log's last entry."""
    reader = SqliteReader(DataDirectory(data).partition_path(partition_of(log)))
    try:
        rows = reader.read_back(log, U63_MAX, 1, PAGE_BYTES).rows
        if not rows:
            return NO_EPOCH.hex(), 0
        entry = unpack_entry(rows[0][1])
        return entry.epoch.hex(), entry.seq
    finally:
        reader.close()


async def fetch(address: str, log: str) -> list[Entry]:
    """Read all of a log as a client that begins at its first entry, until a deadline."""
    entries: list[Entry] = []
    async with Client(address, name="auditor") as client:
        joined = await client.join(log, since=0)
        place = joined.start
        try:
            async with asyncio.timeout(FETCH_S):
                while place.seq < joined.head.seq:
                    event = await anext(client)
                    if isinstance(event, Message | RoomChanged):
                        entries.append(entry_of(event))
                        place = event.cursor
                    elif isinstance(event, Gap):
                        place = event.end
        except TimeoutError:
            pass  # the comparison with the store shows what is missing
    return entries
