"""After a possible loss of commits, the next append to each log begins a new epoch.

Invariant "Epochs are segments".

A file has a generation, and every epoch records the generation in which it began. Opening a file
whose history may differ from what readers saw begins a new generation. A log whose epoch belongs to
an older generation then begins a new epoch, with its next append.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import apsw

from relay.store.file.schema import rows

Durability = Literal["process", "power"]
"""What commits survive: the death of any process, or also that of the whole machine."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the store needs to know about the machine."""

    boot_id: str
    """Changes with each start of the kernel. Empty: unknown."""
    random_bytes: Callable[[int], bytes]


class Begun(NamedTuple):
    """What was found when a file was opened."""

    generation: int
    opening: int
    """How often the file has been opened, including this time."""
    reason: str | None
    """Why it is another generation than before; None: it is not."""


def begin(
    connection: apsw.Connection,
    *,
    boot_id: str,
    durability: Durability,
    doubt: str | None,
    noted_opening: int,
) -> Begun:
    """Mark the file as in use.

    The caller makes this commit durable whatever the durability setting is: if the mark were lost
    together with the commits after it, the file would look clean.

    Args:
        connection: inside a transaction.
        boot_id: of the machine; empty if unknown: then any crash may have been a crash of the
            machine.
        durability: of the commits that follow.
        doubt: why the file may not be what its last writer left; None: it is.
        noted_opening: how often the file was opened before, according to the lock file. The file's
            own count is lower only if its WAL, with the marks of later openings, is gone. (The
            file's "was it closed" mark is not used: a writer may die between the two notes.)
    """
    meta = read_meta(connection)
    generation = number(meta, "generation")
    opening = number(meta, "opening")
    clean = meta.get("clean") == 1
    if generation == 0:
        doubt = "new"
    elif doubt is None and opening < noted_opening:
        doubt = "its WAL was lost after a crash"
    # The relevant durability is that of the commits made so far.
    elif not clean and meta.get("durability") != "power":
        if not boot_id:
            doubt = (
                doubt or "it was in use, and it is not known whether the machine has stopped since"
            )
        elif meta.get("boot_id") != boot_id:
            doubt = doubt or "the machine stopped while it was in use"
    if doubt is not None:
        generation += 1
    opening += 1
    write_meta(
        connection,
        generation=generation,
        opening=opening,
        boot_id=boot_id,
        durability=durability,
        clean=0,
    )
    return Begun(generation, opening, doubt)


def mark_clean(connection: apsw.Connection) -> None:
    """Record that nothing is lost if this is the file's last commit."""
    write_meta(connection, clean=1)


def read_meta(connection: apsw.Connection) -> dict[str, object]:
    """Return the file's metadata."""
    return dict(rows(connection, "SELECT key, value FROM meta"))


def number(meta: dict[str, object], key: str) -> int:
    """Return a number from the file's metadata; 0 if it is absent.

    Raises:
        apsw.CorruptError: it is not a number.
    """
    try:
        return int(str(meta.get(key, 0)))
    except ValueError:
        raise apsw.CorruptError(f"its {key} is not a number") from None


def write_meta(connection: apsw.Connection, **values: int | str) -> None:
    """Set metadata of the file."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))
