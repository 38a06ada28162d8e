"""The settings of table ``[limits]``: what one source, account or connection may cost."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Budgets of one source, one connection, one worker (docs/operations.md, "Budgets")."""

    loopback_exempt: Annotated[
        bool,
        Meta(
            description="Connections from this machine (127.0.0.0/8, ::1), unless a proxy "
            "forwards them, have no budget per source or account, and none for bytes, rooms and "
            "requests."
        ),
    ] = True
    connections_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Logged-in connections of one source (an IPv4 address, an IPv6 /64) per "
            "worker. 0: no limit.",
        ),
    ] = 256
    connections_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Logged-in connections of one account per worker, from any source. 0: no "
            "limit.",
        ),
    ] = 64
    unauthenticated: Annotated[
        int,
        Meta(
            ge=16,
            le=100_000,
            description="Connections per worker that are not logged in, at most max_connections "
            "(but at least 16). When all are taken, the oldest silent one is closed.",
        ),
    ] = 1024
    unauthenticated_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Connections of one source that are not logged in, per worker. 0: no "
            "limit.",
        ),
    ] = 64
    inbox_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Direct messages that one inbox holds, including sent ones. A full inbox "
            "accepts no new message from others; one that is half full accepts none from those to "
            "whom its owner has never written. 0: no limit.",
        ),
    ] = 1_000_000
    joins_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Rooms that all connections of one source follow, per worker. 0: no limit.",
        ),
    ] = 8192
    send_bytes_per_s: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Bytes that one connection may send to rooms each second, averaged over "
            "2 s. 0: no limit.",
        ),
    ] = 524_288
    send_bytes_per_s_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="The same for all connections of one source, per worker. 0: no limit.",
        ),
    ] = 2_097_152
    send_bytes_per_s_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="The same for all connections of one account, per worker. 0: no limit.",
        ),
    ] = 1_048_576
    send_mib_per_day_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="MiB that all connections of one account may send to rooms each day, per "
            "worker. 0: no limit.",
        ),
    ] = 4096
    rooms_per_minute: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Rooms that one connection may create (with a request, or with their first "
            "message) each minute. 0: no limit.",
        ),
    ] = 60
    rooms_per_minute_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for all connections of one source, per worker. 0: no limit.",
        ),
    ] = 240
    rooms_per_minute_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for all connections of one account, per worker. 0: no limit.",
        ),
    ] = 120
    rooms_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Rooms that one account may own; at this number it cannot create another "
            "one. 0: no limit.",
        ),
    ] = 500
    work_per_s_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Work that all connections of one account may request each second, "
            "averaged over 5 s, per worker, in units of about 0.1 ms: a page of history is 4, a "
            "change of a room or an account 20. 0: no limit.",
        ),
    ] = 200
    work_per_s_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for all connections of one source, including registrations. 0: "
            "no limit.",
        ),
    ] = 800
    accounts_per_hour_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Names that one source may register without an invitation each hour, per "
            "worker. 0: no limit.",
        ),
    ] = 600
    waste_per_s: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Requests without effect (refused, unknown, or already done) that one "
            "connection may make each second, averaged over 64 s, in units of about 6 µs: "
            "a refused request is 16. Above the limit its socket is not read for a while. "
            "0: no limit.",
        ),
    ] = 64
    waste_per_s_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="The same for all connections of one source, per worker. Above the "
            "limit, the sockets of connections that continue with such requests are not read for "
            "a while. 0: no limit.",
        ),
    ] = 1024
    received_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="MiB of received and unprocessed data that a worker holds. Above it, the "
            "connections that hold most are closed.",
        ),
    ] = 64
    disk_reserve_mib: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="MiB of free disk space below which nothing is stored, at most a "
            "twentieth of the file system. 0: until the disk is full.",
        ),
    ] = 256
