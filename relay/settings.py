"""What can be set: one declaration each, with its type, default, bounds and meaning.

``relay.configuration`` reads them from flags, the environment and a file.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from relay.limit_settings import Limits
from relay.paths import user_directory

WORKERS_MAX: Final = 256
LIVE: Final = (
    "server.graceful_timeout_s",
    "server.drain_delay_s",
    "server.drain_spread_s",
    "server.rebalance_s",
    "server.worker_timeout_s",
    "server.slow_reader_timeout_s",
    "server.max_worker_age_s",
    "store.search",
    "log.level",
)
"""Settings that a reload changes, besides all of ``limits`` and ``retention``; the others need a
restart."""


SAME_USER: Final = "same"


class Server(Struct, frozen=True, kw_only=True):
    """The processes and what they listen on."""

    bind: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Addresses to listen on, HOST:PORT or [IPV6]:PORT, or unix:PATH for a "
            "proxy of the same user. Port 0: any free one. Loopback by default, so that no network "
            "is served by accident. Sockets that systemd gives (relay.socket) replace them.",
            extra={"address": "or unix"},
        ),
    ] = ("127.0.0.1:7475",)
    proxies: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Networks of proxies (10.0.0.0/8, ::1), unix for all Unix-domain sockets, "
            "or none: who connects from there names for whom by the PROXY protocol, version 2, and "
            "is closed if it does not. From elsewhere such a header is no handshake.",
            extra={"networks": "or word"},
        ),
    ] = ("none",)
    workers: Annotated[
        int, Meta(ge=0, le=WORKERS_MAX, description="Worker processes. 0: one per core.")
    ] = 0
    max_connections: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Connections per worker that are logged in; those that are not yet have "
            "slots of their own (limits.unauthenticated). 0: as many as the limit on open files "
            "allows.",
        ),
    ] = 0
    graceful_timeout_s: Annotated[
        float,
        Meta(
            ge=0, le=3600, description="How long clients may take to leave when the server stops."
        ),
    ] = 30.0
    drain_delay_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="How long a server that was asked to stop (TERM) goes on as before, with "
            "/readyz red, so that whoever spreads clients sends them elsewhere.",
        ),
    ] = 0.0
    drain_spread_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Over how long it then sends its clients away, a few at a time, so that "
            "they do not all connect elsewhere at once.",
        ),
    ] = 0.0
    rebalance_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="Over about how long a worker with far more connections than the others "
            "sends its surplus away, a few at a time, to connect again elsewhere. 0: never.",
        ),
    ] = 30.0
    worker_timeout_s: Annotated[
        float,
        Meta(
            ge=0.5,
            le=600,
            description="A worker without a heartbeat for this long is killed and replaced.",
        ),
    ] = 5.0
    max_worker_age_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="A worker that is older is replaced, one at a time, as by `relay ctl "
            "restart`. 0: never.",
        ),
    ] = 0.0
    spare_worker: Annotated[
        bool,
        Meta(
            description="Keep one more process that has loaded everything and takes the place of a "
            "worker that dies, at once. It needs the memory of an idle worker.",
        ),
    ] = True
    keepalive_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="A client that has been silent for this long is pinged; after two "
            "unanswered pings the connection is closed.",
        ),
    ] = 30.0
    slow_reader_timeout_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86_400,
            description="A client that reads nothing of what was sent to it for this long is "
            "disconnected; it may reconnect and resume.",
        ),
    ] = 60.0
    key_bits: Annotated[
        int,
        Meta(
            ge=2048,
            le=8192,
            description="Size in bits of the RSA key that the first start generates.",
        ),
    ] = 3072
    key_passphrase: Annotated[
        str,
        Meta(
            description="Where the passphrase of an encrypted server.key is: the path of a file of "
            "mode 0600, or fd:N for a descriptor that is handed over. The first start encrypts the "
            "key that it generates with it. Empty: the key is not encrypted.",
            extra={"path": "may be empty"},
        ),
    ] = ""
    user: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            extra={"user": "required"},
            description="Started as root: the user that the relay's processes drop to, by name or "
            "number. The data directory must be that user's, and the key in it root's. same: they "
            "stay what they are.",
        ),
    ] = SAME_USER
    agent_user: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            extra={"user": "required"},
            description="Likewise the user of the key agent alone, once it has read the key. "
            "same: that of server.user.",
        ),
    ] = SAME_USER
    sandbox: Annotated[
        bool,
        Meta(
            description="Keep the relay's processes from each other: no other process of their "
            "user may look into them, and the workers cannot open the key, where the kernel has "
            "Landlock. Off for debuggers and profilers that run as the relay's user.",
        ),
    ] = True
    runtime: Annotated[
        str,
        Meta(
            description="Directory for the sockets between the server's processes. For one relay "
            "alone. Empty: run/ in the data directory, or where that path is too long a new one in "
            "$XDG_RUNTIME_DIR or the temporary directory.",
            extra={"path": "may be empty"},
        ),
    ] = ""


class Accounts(Struct, frozen=True, kw_only=True):
    """Who may have a name."""

    registration: Annotated[
        Literal["kept", "open", "invite", "closed"],
        Meta(
            description="Who may register a name: everybody (open), who has an invitation "
            "(invite), nobody but whom an operator adds (closed). Written into the data directory; "
            "kept: as written there, and invite at the first start.",
        ),
    ] = "kept"
    guests: Annotated[
        bool,
        Meta(
            description="Let clients in without an account. Their names begin with ~, which no "
            "account's does."
        ),
    ] = False


class Rooms(Struct, frozen=True, kw_only=True):
    """Who may begin rooms."""

    create: Annotated[
        Literal["anyone", "operators"],
        Meta(
            description="Who may begin a room, by its first message or on purpose, and owns it "
            "then: everybody (anyone), or the accounts of operators (operators)."
        ),
    ] = "anyone"


class Retention(Struct, frozen=True, kw_only=True):
    """How long messages are kept (docs/operations.md, "Retention")."""

    age_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days for which a room or an inbox keeps a message. 0: no bound.",
        ),
    ] = 0
    messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000_000,
            description="Messages that a room or an inbox keeps, the newest. 0: no bound.",
        ),
    ] = 0
    mib: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="MiB of messages that a room or an inbox keeps, the newest. 0: no bound.",
        ),
    ] = 0
    rooms_choose: Annotated[
        Literal["less", "any"],
        Meta(
            description="What the owners of a room may choose for it: to keep less than by these "
            "settings (less), or whatever they like (any)."
        ),
    ] = "less"


class Store(Struct, frozen=True, kw_only=True):
    """Where and how messages are kept."""

    data: Annotated[
        str,
        Meta(
            description="The data directory. It holds the messages and the server's key.",
            extra={"path": "required"},
        ),
    ] = field(default_factory=lambda: str(user_directory("data", "give --data, or store.data")))
    durability: Annotated[
        Literal["process", "power"],
        Meta(
            description="What an accepted message survives: the death of any process, or also a "
            "power failure (each commit then waits for the disk)."
        ),
    ] = "process"
    search: Annotated[
        bool,
        Meta(
            description="Keep an index of the words of all messages, in files of its own (search/ "
            "in the data directory), so that people can search what they may read. Off: there is "
            "none, and one that there was is removed."
        ),
    ] = True


class Control(Struct, frozen=True, kw_only=True):
    """What watches and steers the server, apart from its clients."""

    bind: Annotated[
        str,
        Meta(
            description="Address for /metrics, /livez, /readyz and /lagz: HOST:PORT, or unix:PATH "
            "for a Unix-domain socket. Whoever reaches it can read them, without a password. auto: "
            "127.0.0.1:7476, or any free port of 127.0.0.1 where that one is in use. off: nowhere.",
            extra={"address": "or word"},
        ),
    ] = "auto"


class Log(Struct, frozen=True, kw_only=True):
    """The log on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Minimum level of what is logged."),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="One JSON object per line, or text. auto: text on a terminal, else JSON."),
    ] = "auto"


class Settings(Struct, frozen=True, kw_only=True):
    """All settings."""

    server: Server = field(default_factory=Server)
    store: Store = field(default_factory=Store)
    control: Control = field(default_factory=Control)
    accounts: Accounts = field(default_factory=Accounts)
    rooms: Rooms = field(default_factory=Rooms)
    retention: Retention = field(default_factory=Retention)
    limits: Limits = field(default_factory=Limits)
    log: Log = field(default_factory=Log)

    def value_of(self, path: str) -> object:
        """Return the value of a setting by its dotted path."""
        section, key = path.split(".")
        return getattr(getattr(self, section), key)
