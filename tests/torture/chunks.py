"""Histories at full speed: those of one process with many clients, in chunks of records.

The members of a room get the same bytes, so a content that many received is unpacked and written
once, as one line of ``records``; the history of each member is the numbers of its lines, in order.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from relay.chat.entries import Cursor, Kind
from relay.wire.envelopes import Behind, EntryMessage, Error, Gap, Joined, Live, ServerEnvelope
from relay.wire.packing import unpack_server
from tests.torture.programs import digest_of
from tests.torture.records import Began, Hole, Lost, Placed, Record, Seen

CONTENTS_KEPT: Final = 512
"""Cached contents: 32 MB at most. One that comes again later is only written twice."""
NUMBERS: Final = "I"
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(list[Record])


class Noted(NamedTuple):
    """A content, as it was written."""

    chunk: int
    entries: int
    behind: int
    """The number of BEHIND in it."""
    cursors: dict[str, Cursor]
    """The reader's cursors after it, in the logs that it advances."""


class Chunks:
    """A file of records, a list of them on each line."""

    def __init__(self, path: Path) -> None:
        """Open a new file."""
        self._file = path.open("xb")
        self._count = 0
        self.note = lru_cache(CONTENTS_KEPT)(self._note)
        """Write a content, if it is not there yet."""

    def add(self, records: list[Record]) -> int:
        """Write records; return the number of their line."""
        self._file.write(_ENCODER.encode(records) + b"\n")
        self._count += 1
        return self._count - 1

    def close(self) -> None:
        """Flush."""
        self._file.close()

    def _note(self, content: bytes) -> Noted:
        records = [one for e in unpack_server(content) if (one := record_of(e)) is not None]
        cursors: dict[str, Cursor] = {}
        for record in records:
            if isinstance(record, Seen | Began):
                cursors[record.log] = Cursor(bytes.fromhex(record.epoch), record.seq)
            elif isinstance(record, Hole):
                epoch, seq = record.end
                cursors[record.log] = Cursor(bytes.fromhex(epoch), seq)
        entries = sum(isinstance(record, Seen) for record in records)
        behind = sum(isinstance(record, Placed) and not record.live for record in records)
        return Noted(self.add(records), entries, behind, cursors)


def record_of(envelope: ServerEnvelope) -> Record | None:
    """Return a reader's record of an envelope."""
    match envelope:
        case EntryMessage(log=log, seq=seq, prev=prev, sender=sender, counter=counter, body=body):
            epoch = envelope.epoch.hex()
            if envelope.kind == Kind.SYSTEM:
                return Seen(log, epoch, seq, prev, sender, 0, 0)
            return Seen(log, epoch, seq, prev, sender, counter, digest_of(body))
        case Joined(log=log, start_epoch=epoch, start_seq=seq):
            return Began(log, epoch.hex(), seq)
        case Gap(log=log, reason=reason):
            start = envelope.from_epoch.hex(), envelope.from_seq
            end = envelope.to_epoch.hex(), envelope.to_seq
            return Hole(log, start, end, reason)
        case Live(log=log, seq=seq):
            return Placed(log, True, seq)
        case Behind(log=log, seq=seq):
            return Placed(log, False, seq)
        case Error(text=text):
            return Lost(text)
        case _:
            return None


def write_history(path: Path, numbers: array[int]) -> None:
    """Write the chunks of a member, in order."""
    path.write_bytes(numbers.tobytes())


class Library:
    """The histories in a file of chunks. Only the offset of each line is in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._starts = array("Q", [0])
        for line in self._file:
            self._starts.append(self._starts[-1] + len(line))

    def everything(self) -> Iterator[Record]:
        """Yield all records of the file: the history of its only writer."""
        for number in range(len(self._starts) - 1):
            yield from self._chunk(number)

    def history(self, path: Path) -> Iterator[Record]:
        """Yield the records of one member.

        A log begins once for it: the start of a later join is ignored, and entries after it must
        follow the last entry before it.
        """
        numbers = array(NUMBERS, path.read_bytes())
        begun: set[str] = set()
        for number in numbers:
            for record in self._chunk(number):
                if isinstance(record, Began):
                    if record.log in begun:
                        continue
                    begun.add(record.log)
                yield record

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _chunk(self, number: int) -> list[Record]:
        start, end = self._starts[number], self._starts[number + 1]
        self._file.seek(start)
        return _DECODER.decode(self._file.read(end - start))
