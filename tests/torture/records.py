"""The records of the clients of a run: one JSON line each, written before it takes effect.

A client's file is also its only memory: a client that was killed reads it and continues. So its
records and its knowledge never differ.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import msgspec


class Sent(msgspec.Struct, frozen=True, array_like=True, tag="sent"):
    """A sender is about to send its message ``number`` (from 1, per log; also its counter)."""

    log: str
    number: int
    digest: int


class Acked(msgspec.Struct, frozen=True, array_like=True, tag="acked"):
    """The server has acknowledged it, as (epoch, seq)."""

    log: str
    number: int
    epoch: str
    seq: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The server has refused it finally. This must not happen to any message of a run."""

    log: str
    number: int
    why: str


class Began(msgspec.Struct, frozen=True, array_like=True, tag="began"):
    """A reader follows a log for the first time: entries after (epoch, seq) come."""

    log: str
    epoch: str
    seq: int


class Resumed(msgspec.Struct, frozen=True, array_like=True, tag="resumed"):
    """A reader follows a log again in a new process, from the last entry of its file."""

    log: str
    epoch: str
    seq: int


class Seen(msgspec.Struct, frozen=True, array_like=True, tag="seen"):
    """A reader got an entry."""

    log: str
    epoch: str
    seq: int
    prev: int
    sender: str
    number: int
    digest: int


class Hole(msgspec.Struct, frozen=True, array_like=True, tag="gap"):
    """A reader got a gap: after ``start`` up to and including ``end``, each (epoch, seq)."""

    log: str
    start: tuple[str, int]
    end: tuple[str, int]
    reason: int


class Placed(msgspec.Struct, frozen=True, array_like=True, tag="placed"):
    """A reader got LIVE (or BEHIND) at ``seq``."""

    log: str
    live: bool
    seq: int


class Connection(msgspec.Struct, frozen=True, array_like=True, tag="connection"):
    """The state of the client's connection, as the client reports it."""

    state: str
    detail: str


class Lost(msgspec.Struct, frozen=True, array_like=True, tag="lost"):
    """The client has ended, or stopped following a log, without being asked to."""

    why: str


class Process(msgspec.Struct, frozen=True, array_like=True, tag="process"):
    """A process of this client begins (or, as its last record, ends after TERM)."""

    pid: int
    ends: bool = False


class Totals(msgspec.Struct, frozen=True, array_like=True, tag="totals"):
    """At the end of a connection or process: what the client library counted since the last."""

    logins: int
    resent: int
    repeats: int
    rejoins: int
    """Times that the client detected a gap, and joined again: it must not be needed."""
    suspensions: int = 0
    """Times that it left its rooms: its program took too few events while it waited for an
    answer.
    """
    resumptions: int = 0
    """Resumed handshakes."""


Record: TypeAlias = (
    Sent
    | Acked
    | Failed
    | Began
    | Resumed
    | Seen
    | Hole
    | Placed
    | Connection
    | Lost
    | Process
    | Totals
)
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Record)


class Recorder:
    """Appends records to a file; each is written to the kernel when ``write`` returns."""

    def __init__(self, path: Path) -> None:
        """Open the file; an incomplete last line is cut off."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        whole = path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._fd, whole)

    def write(self, record: Record) -> None:
        """Append one record."""
        os.write(self._fd, _ENCODER.encode(record) + b"\n")


class Follower:
    """Reads a file of records while its client writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> Iterator[Record]:
        """Yield the whole records that were added since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                record: Record = _DECODER.decode(line)
                yield record


def read_records(path: Path) -> Iterator[Record]:
    """Yield all records of a file."""
    return Follower(path).new()
