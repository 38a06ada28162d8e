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
            description="Addresses to listen on: HOST:PORT, [IPV6]:PORT, or unix:PATH for a "
            "proxy of the same user. Port 0 selects any free port. Of a name with several "
            "addresses the first is used. The default is loopback, so that no network is served "
            "by accident. Sockets that systemd passes (relay.socket) replace these addresses.",
            extra={"address": "or unix"},
        ),
    ] = ("127.0.0.1:7475",)
    proxies: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Networks of proxies (10.0.0.0/8, ::1), unix for all Unix-domain "
            "sockets, or none. A connection from these networks must name its client with the "
            "PROXY protocol, version 2, and is closed if it does not. From other networks such a "
            "header is refused as an invalid handshake.",
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
            description="Logged-in connections per worker. Connections that are not logged in yet "
            "have separate slots (limits.unauthenticated). 0: as many as the limit on "
            "open files allows.",
        ),
    ] = 0
    graceful_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="How long clients may take to disconnect when the server stops.",
        ),
    ] = 30.0
    drain_delay_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="How long a server continues as before after it was asked to stop (TERM), "
            "with /readyz red, so that load balancers send clients elsewhere.",
        ),
    ] = 0.0
    drain_spread_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="The time over which it then disconnects its clients, a few at a time, so "
            "that they do not all connect elsewhere at once.",
        ),
    ] = 0.0
    rebalance_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="The approximate time over which a worker with far more connections than "
            "the others disconnects its surplus, a few at a time, to connect again elsewhere. 0: "
            "never.",
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
            description="A worker that is older is replaced, one at a time, as with `relay ctl "
            "restart`. 0: never.",
        ),
    ] = 0.0
    spare_worker: Annotated[
        bool,
        Meta(
            description="Keep one spare process that has loaded everything and immediately "
            "replaces a worker that dies. It needs the memory of an idle worker.",
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
            description="A client that reads nothing of the data sent to it for this long is "
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
            description="Where the passphrase of an encrypted server.key is: the path of a file "
            "with mode 0600, or fd:N for an inherited descriptor. The first start uses it to "
            "encrypt the key that it generates. Empty: the key is not encrypted.",
            extra={"path": "may be empty"},
        ),
    ] = ""
    user: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            extra={"user": "required"},
            description="The user that the relay's processes switch to when started as root, by "
            "name or number. The data directory must belong to that user, and the key in it to "
            "root. same: they do not switch.",
        ),
    ] = SAME_USER
    agent_user: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
            extra={"user": "required"},
            description="The user that the key agent alone switches to, after it has read the key. "
            "same: that of server.user.",
        ),
    ] = SAME_USER
    sandbox: Annotated[
        bool,
        Meta(
            description="Isolate the relay's processes from each other: no other process of their "
            "user may inspect them, and the workers cannot open the key if the kernel has "
            "Landlock. Turn it off for debuggers and profilers that run as the relay's "
            "user.",
        ),
    ] = True
    runtime: Annotated[
        str,
        Meta(
            description="Directory for the sockets between the server's processes, for one relay "
            "only. Empty: run/ in the data directory, or, if that path is too long, a new "
            "directory in $XDG_RUNTIME_DIR or the temporary directory.",
            extra={"path": "may be empty"},
        ),
    ] = ""


class Accounts(Struct, frozen=True, kw_only=True):
    """Who may have a name."""

    registration: Annotated[
        Literal["kept", "open", "invite", "closed"],
        Meta(
            description="Who may register a name: everyone (open), people with an invitation "
            "(invite), or only people whom an operator adds (closed). The value is "
            "recorded in the data directory. kept: the recorded value, or invite at the "
            "first start.",
        ),
    ] = "kept"
    guests: Annotated[
        bool,
        Meta(
            description="Accept clients without an account. Their names begin with ~, which no "
            "account name does."
        ),
    ] = False


class Rooms(Struct, frozen=True, kw_only=True):
    """Who may begin rooms."""

    create: Annotated[
        Literal["anyone", "operators"],
        Meta(
            description="Who may create a room, with a request or by sending its first message, "
            "and becomes its owner: everyone (anyone), or operators (operators)."
        ),
    ] = "anyone"


class Retention(Struct, frozen=True, kw_only=True):
    """How long messages are kept (docs/operations.md, "Retention")."""

    age_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="Days for which a room or an inbox keeps a message. 0: no limit.",
        ),
    ] = 0
    messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000_000,
            description="Number of newest messages that a room or an inbox keeps. 0: no limit.",
        ),
    ] = 0
    mib: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="MiB of newest messages that a room or an inbox keeps. 0: no limit.",
        ),
    ] = 0
    rooms_choose: Annotated[
        Literal["less", "any"],
        Meta(
            description="What the owners of a room may choose for it: to keep less than these "
            "settings (less), or anything (any)."
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
            description="Keep an index of the words of all messages, in separate files (search/ in "
            "the data directory), so that people can search what they may read. Off: "
            "there is no index, and an existing one is removed."
        ),
    ] = True


class Control(Struct, frozen=True, kw_only=True):
    """What watches and steers the server, apart from its clients."""

    bind: Annotated[
        str,
        Meta(
            description="Address for /metrics, /livez, /readyz and /lagz: HOST:PORT, or "
            "unix:PATH for a Unix-domain socket. Anyone who can reach it can read them, without "
            "a password. auto: 127.0.0.1:7476, or any free port of 127.0.0.1 if that one is in "
            "use. off: no address.",
            extra={"address": "or word"},
        ),
    ] = "auto"


class Log(Struct, frozen=True, kw_only=True):
    """The log on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Minimum level of the lines that are logged."),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(
            description="One JSON object per line, or text. auto: text on a terminal, otherwise "
            "JSON."
        ),
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
