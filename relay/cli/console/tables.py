"""Formats the answers of a running relay as lines for people. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from relay.terminal.text import harmless
from relay.terminal.view import day_and_minute

Item = dict[str, Any]
_DURATIONS: Final = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))
TOP_OTHER_LINES: Final = 6
"""Lines of ``relay ctl top`` besides workers, rooms and readers: headings and blank lines."""
_UNITS: Final = ("B", "K", "M", "G", "T")


def table(columns: Sequence[tuple[str, str]], items: Iterable[Item]) -> list[str]:
    """Return a heading and a line for each item; numbers right-aligned, texts left-aligned.

    Args:
        columns: the key of each, and its heading.
        items: each with all of the keys.
    """
    listed = list(items)
    texts = [[harmless(_text(key, item.get(key, ""))) for key, _ in columns] for item in listed]
    headings = [heading for _, heading in columns]
    right = [
        bool(listed) and all(isinstance(item.get(key), int | float) for item in listed)
        for key, _ in columns
    ]
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if to_the_right else text.ljust(width)
            for text, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (headings, *texts)
    ]


def status_lines(status: Item) -> list[str]:
    """Return the output of ``relay ctl status``."""
    disk = status["disk"]
    state = "ready" if status["ready"] else "NOT READY"
    up = duration(status["uptime_s"])
    counts = (
        f"{status['connections']} connections, {status['messages_accepted']} messages accepted, "
        f"{status['deliveries']} delivered live"
    )
    free = "?" if disk["free_bytes"] is None else size(disk["free_bytes"])
    databases, wal = size(disk["database_bytes"]), size(disk["wal_bytes"])
    lines = [
        f"relay {status['version']}, pid {status['pid']}, up {up}: {state}",
        *(f"  {harmless(reason)}" for reason in status["reasons"]),
        *(f"  {harmless(warning)}" for warning in status["warnings"]),
        *(
            f"  partition {index}: {harmless(reason)}"
            for key in ("refused", "unavailable")
            for index, reason in status.get(key, {}).items()
        ),
        counts,
        f"disk: {databases} databases, {wal} write-ahead logs, {free} free",
        "",
    ]
    return lines + table(
        [
            ("worker", "WORKER"), ("pid", "PID"), ("state", "STATE"), ("connections", "CONNS"),
            ("logged_in", "LOGGED IN"), ("catching_up", "BEHIND"), ("accepted", "ACCEPTED"),
            ("deliveries", "DELIVERED"), ("homes", "HOME OF"),
        ],
        [{**worker, "homes": len(worker["partitions"])} for worker in status["workers"]],
    )  # fmt: skip


def connection_lines(items: list[Item]) -> list[str]:
    """Return the output of ``relay ctl connections``."""
    return table(
        [
            ("id", "ID"), ("worker", "WORKER"), ("name", "NAME"), ("peer", "FROM"),
            ("stage", "STAGE"), ("age_s", "AGE"), ("rooms", "ROOMS"), ("behind", "BEHIND"),
            ("owed_bytes", "OWED"),
        ],
        items,
    )  # fmt: skip


def room_lines(items: list[Item]) -> list[str]:
    """Return the output of ``relay ctl rooms``."""
    return table(
        [("room", "ROOM"), ("connections", "CONNS"), ("live", "LIVE"), ("head", "HEAD")], items
    )


def user_lines(items: list[Item]) -> list[str]:
    """Return the output of ``relay ctl users``."""
    shown = [{**item, "role": "operator" if item["operator"] else ""} for item in items]
    return table(
        [
            ("name", "NAME"), ("state", "STATE"), ("role", "ROLE"), ("devices", "DEVICES"),
            ("sessions", "SESSIONS"),
        ],
        shown,
    )  # fmt: skip


def invitation_lines(items: list[Item]) -> list[str]:
    """Return the output of ``relay ctl invitations`` and ``relay invite --list``."""
    shown = [
        {
            **item,
            "expires": day_and_minute(item["expires_ms"]) if item["expires_ms"] else "never",
            "role": "operator" if item["operator"] else "",
        }
        for item in items
    ]
    return table([("expires", "EXPIRES"), ("by", "BY"), ("role", "ROLE"), ("id", "ID")], shown)


def closed_lines(items: list[Item]) -> list[str]:
    """Return the output of ``relay ctl closed``."""
    return table(
        [
            ("time", "AT"), ("id", "ID"), ("name", "NAME"), ("peer", "FROM"), ("reason", "REASON"),
            ("lasted_s", "LASTED"), ("detail", "DETAIL"),
        ],
        items,
    )  # fmt: skip


def top_lines(top: Item, height: int | None = None) -> list[str]:
    """Return the output of ``relay ctl top``, with as many rooms and readers as fit ``height``.

    None: all of them.
    """
    workers = table(
        [
            ("worker", "WORKER"), ("pid", "PID"), ("state", "STATE"), ("cpu_percent", "%CPU"),
            ("resident_bytes", "RSS"), ("connections", "CONNS"), ("catching_up", "BEHIND"),
            ("accepted_per_s", "ACCEPTED/S"), ("deliveries_per_s", "DELIVERED/S"),
        ],
        top["workers"],
    )  # fmt: skip
    rooms, readers = top["rooms"], top["readers"]
    if height is not None:
        left = max(0, height - len(workers) - TOP_OTHER_LINES)
        half = max(left // 2, left - len(readers))
        rooms = rooms[:half]
        readers = readers[: left - len(rooms)]
    busiest = table(
        [("room", "BUSIEST ROOM"), ("connections", "CONNS"), ("messages_per_s", "MSG/S")], rooms
    )
    slowest = table(
        [
            ("name", "SLOWEST READER"), ("id", "ID"), ("peer", "FROM"), ("behind", "BEHIND"),
            ("owed_bytes", "OWED"),
        ],
        readers,
    )  # fmt: skip
    state = "ready" if top["ready"] else "NOT READY: " + "; ".join(top["reasons"])
    head = f"relay {top['version']}, up {duration(top['uptime_s'])}: {harmless(state)}"
    lines = [head, *(f"  {harmless(line)}" for line in top["missing"]), ""]
    return [*lines, *workers, "", *busiest, "", *slowest]


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = int(seconds)
    for unit, length, smaller, small in _DURATIONS:
        if whole >= length:
            return f"{whole // length}{unit}{whole % length // small}{smaller}"
    return f"{whole}s"


def size(count: int) -> str:
    """Return a number of bytes with at most three digits."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1000:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}{_UNITS[-1]}"


def _text(key: str, value: object) -> str:
    if isinstance(value, int | float):
        if key.endswith("_bytes"):
            return size(int(value))
        if key == "time":
            return time.strftime("%m-%d %H:%M:%S", time.localtime(value))
        if key.endswith("_s") and not key.endswith("per_s"):
            return duration(value)
    return str(value)
