"""After a possible loss of commits the next append to each log begins a new epoch.

Invariant "Epochs are segments".

A file has a generation, and every epoch remembers the generation that it began in. Opening a file
whose past may differ from what readers saw begins a new generation; a log whose epoch is of an
older one then takes a new epoch, at its next append.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import apsw

from relay.store.schema import rows

Durability = Literal["process", "power"]
"""What commits survive: the death of any process, or that of the whole machine, too."""


@dataclass(frozen=True, slots=True)
class Host:
    """What the store needs to know of the machine it runs on."""

    boot_id: str
    """Another one after each start of the kernel. Empty: not known."""
    random_bytes: Callable[[int], bytes]


class Begun(NamedTuple):
    """What opening a file has found."""

    generation: int
    opening: int
    """How often the file has been opened, this time included."""
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

    The caller makes this commit durable whatever its durability is: were the mark lost with the
    commits after it, the file would look clean.

    Args:
        connection: inside a transaction.
        boot_id: the machine's; empty when it is not known: then any crash may have been its.
        durability: of the commits that follow.
        doubt: why the file may not be the one that its last writer left; None: it is.
        noted_opening: how often the file was opened before, by the lock file. What the file itself
            has is older only if its WAL, which the marks of later openings were in, is gone. (Not
            "was it closed": a writer may die between noting it here and noting it there.)
    """
    meta = read_meta(connection)
    generation = number(meta, "generation")
    opening = number(meta, "opening")
    clean = meta.get("clean") == 1
    if generation == 0:
        doubt = "new"
    elif doubt is None and opening < noted_opening:
        doubt = "its WAL was lost after a crash"
    # The durability that counts is that of the commits made until now.
    elif not clean and meta.get("durability") != "power":
        if not boot_id:
            doubt = doubt or "it was in use, and whether the machine stopped since is not known"
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
    """Note that nothing is lost when this is the file's last commit."""
    write_meta(connection, clean=1)


def read_meta(connection: apsw.Connection) -> dict[str, object]:
    """Return the file's own facts."""
    return dict(rows(connection, "SELECT key, value FROM meta"))


def number(meta: dict[str, object], key: str) -> int:
    """Return one of the file's own facts that is a number; 0 if it is not there.

    Raises:
        apsw.CorruptError: it is none.
    """
    try:
        return int(str(meta.get(key, 0)))
    except ValueError:
        raise apsw.CorruptError(f"its {key} is not a number") from None


def write_meta(connection: apsw.Connection, **values: int | str) -> None:
    """Set facts of the file."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))
