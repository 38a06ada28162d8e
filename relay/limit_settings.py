"""The settings of table ``[limits]``: what one source, account or connection may cost."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Budgets of one source, one connection, one worker (docs/operations.md, "Budgets")."""

    loopback_exempt: Annotated[
        bool,
        Meta(
            description="Connections from this machine (127.0.0.0/8, ::1) have no budget of their "
            "source or account, and none for bytes, rooms and requests."
        ),
    ] = True
    connections_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Logged-in connections of one source (an IPv4 address, an IPv6 /64) per "
            "worker. 0: no bound.",
        ),
    ] = 256
    connections_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Logged-in connections of one account per worker, from wherever they come. "
            "0: no bound.",
        ),
    ] = 64
    unauthenticated: Annotated[
        int,
        Meta(
            ge=16,
            le=100_000,
            description="Connections per worker that are not logged in, and never more than "
            "max_connections (but 16). When all are taken, the oldest silent one makes room.",
        ),
    ] = 1024
    unauthenticated_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=100_000,
            description="Of those, from one source. 0: no bound.",
        ),
    ] = 64
    inbox_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Direct messages that one inbox holds, sent ones included; a full one "
            "takes no new message of others. 0: no bound.",
        ),
    ] = 1_000_000
    joins_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Rooms that all connections of one source follow, per worker. 0: no bound.",
        ),
    ] = 8192
    send_bytes_per_s: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Bytes that one connection may send to rooms each second, on average over "
            "2 s. 0: no bound.",
        ),
    ] = 524_288
    send_bytes_per_s_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Likewise all connections of one source, per worker. 0: no bound.",
        ),
    ] = 2_097_152
    send_bytes_per_s_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Likewise all connections of one account, per worker. 0: no bound.",
        ),
    ] = 1_048_576
    send_mib_per_day_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="MiB that all connections of one account may send to rooms each day, per "
            "worker. 0: no bound.",
        ),
    ] = 4096
    rooms_per_minute: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Rooms that one connection may begin (create, or send the first message "
            "of) each minute. 0: no bound.",
        ),
    ] = 60
    rooms_per_minute_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Likewise all connections of one source, per worker. 0: no bound.",
        ),
    ] = 240
    rooms_per_minute_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Likewise all connections of one account, per worker. 0: no bound.",
        ),
    ] = 120
    rooms_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Rooms that one account owns, for it to begin one more. 0: no bound.",
        ),
    ] = 500
    work_per_s_per_user: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="What all connections of one account may ask for each second, on average "
            "over 5 s, per worker, in units of about 0.1 ms: a page of history is 4, a change of "
            "a room or an account 20. 0: no bound.",
        ),
    ] = 200
    work_per_s_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Likewise all connections of one source, registrations included. 0: no "
            "bound.",
        ),
    ] = 800
    waste_per_s: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="What one connection may ask for each second that brings nothing (it is "
            "refused, unknown, or done long since), on average over 64 s, in units of about 6 µs: "
            "a refused request is 16. Beyond it its socket is not read for "
            "a while. 0: no bound.",
        ),
    ] = 64
    waste_per_s_per_source: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Likewise all connections of one source, per worker: beyond it those that "
            "go on with such things rest. 0: no bound.",
        ),
    ] = 1024
    received_mib: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="MiB that a worker holds of what was received and is not processed; beyond "
            "it the connections that hold most are closed.",
        ),
    ] = 64
    disk_reserve_mib: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="MiB of free disk below which nothing is stored any more, and at most a "
            "twentieth of the file system. 0: until it is full.",
        ),
    ] = 256
