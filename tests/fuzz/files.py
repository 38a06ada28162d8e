"""Targets with the contents of files: a user's keys, pins and aliases, backups, foreign logs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from relay import limits
from relay.chat.accounts.chain import Pin
from relay.chat.names import is_handle
from relay.chat.partition import PARTITIONS
from relay.cli.arguments.aliases import Aliases
from relay.cli.server_commands import foreign_lines
from relay.client.devices.device_key import FORMAT, DeviceKey, contains, public_text
from relay.client.devices.key_files import KeyFiles
from relay.client.trust.known_servers import KnownServers
from relay.errors import StartError, UsageError
from relay.server.backups import manifest
from tests.fuzz.inputs import corpus_of, edited, edits
from tests.fuzz.target import Target
from tests.fuzz.texts import FINGERPRINT

NOW_MS: Final = 1_800_000_000_000
OTHER: Final = "b" * 51 + "a"


@contextmanager
def folder() -> Iterator[Path]:
    """A directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="relay-fuzz-") as name:
        yield Path(name)


def changed(seeds: Sequence[bytes]) -> SearchStrategy[bytes]:
    """Return contents of a file: some of the seeds in a row, changed."""
    rows = st.lists(st.sampled_from(seeds) | st.binary(max_size=60), max_size=4).map(b"".join)
    return st.builds(edited, rows, st.just([]) | edits)


def is_one_line(error: Exception) -> bool:
    """Return whether a person can read it; what it quotes is made harmless by what prints it."""
    return 0 < len(str(error)) < 10_000 and "\n" not in str(error)


# --- aliases --------------------------------------------------------------------------------------
ALIASES: Final = [
    f"home relay://{FINGERPRINT}@example.org\n".encode(),
    b"# a remark\n\nwork 127.0.0.1:7475\r\n",
    "a\u2028b\x85c 1\x1c2 3\u00a04".encode(),
    *corpus_of("aliases"),
]


def _check_aliases(data: bytes) -> None:
    """An added one is found, a removed one is not, and no other is lost; or one UsageError."""
    with folder() as place:
        path = place / "aliases"
        path.write_bytes(data)
        aliases = Aliases(path)
        try:
            before = aliases.all()
        except UsageError as error:
            assert is_one_line(error)
            return
        if before.keys().isdisjoint({"new"}):
            aliases.add("new", "127.0.0.1:1")
            assert aliases.all() == before | {"new": "relay://127.0.0.1:1"}
            aliases.remove("new")
        left = aliases.all()
        assert left == before
        for name in before:
            aliases.remove(name)
            del left[name]
            assert aliases.all() == left


aliases = Target(
    "aliases",
    changed(ALIASES),
    _check_aliases,
    examples=40,
    of_bytes=bytes,
    seeds=ALIASES,
    quick=40,
)


# --- the keys that follow a server's -----------------------------------------------------------
LINEAGES: Final = [
    f"* relay-next-key-v1 {FINGERPRINT} {OTHER}\n".encode(),
    f"* relay-followed-key-v1 {FINGERPRINT} {OTHER} more\n[h]:1 relay-key-v1 {OTHER}".encode(),
    *corpus_of("lineages"),
]


def _check_lineage(data: bytes) -> None:
    """What is added is known afterwards; or one UsageError."""
    with folder() as place:
        path = place / "known_servers"
        path.write_bytes(data)
        known = KnownServers(path)
        try:
            known.lineage()
            known.announced(FINGERPRINT, OTHER)
            before = known.lineage()
            known.followed(FINGERPRINT, OTHER)
            after = known.lineage()
        except UsageError as error:
            assert is_one_line(error)
            return
        assert before.following.get(FINGERPRINT) == OTHER or before.replaced(OTHER)
        assert after.followed.get(FINGERPRINT) == OTHER or after.replaced(OTHER)


lineages = Target(
    "lineages",
    changed(LINEAGES),
    _check_lineage,
    examples=40,
    of_bytes=bytes,
    seeds=LINEAGES,
    quick=100,
)


# --- keys and pins --------------------------------------------------------------------------------
_PUBLIC: Final = public_text(DeviceKey(bytes(32)).public)
_SEALED: Final = {
    "scrypt_cost": 1 << 17,
    "salt": "ab" * 16,
    "nonce": "cd" * 12,
    "sealed": "ef" * 48,
}
KEYS: Final = [
    *(
        json.dumps({"format": FORMAT, "public": _PUBLIC, "name": "ann", **secret}).encode()
        for secret in ({"seed": "00" * 32}, _SEALED)
    ),
    *corpus_of("device_keys"),
]


def _check_key(data: bytes) -> None:
    """A key that can be saved and loaded again, or one UsageError."""
    with folder() as place:
        path = place / "key"
        path.touch(0o600)
        path.write_bytes(data)
        assert contains(path, DeviceKey(bytes(32))) in (True, False)
        try:
            key = DeviceKey.load(path)
        except UsageError as error:
            assert is_one_line(error)
            return
        assert key.name is None or is_handle(key.name)
        key.save(place / "again")
        again = DeviceKey.load(place / "again")
        assert (again.public, again.name) == (key.public, key.name)


device_keys = Target(
    "device_keys",
    changed(KEYS),
    _check_key,
    examples=30,
    of_bytes=bytes,
    seeds=KEYS,
    quick=100,
)
PINS: Final = [
    f"ann {'ab' * 32} 3 {'cd' * 32}\n".encode(),
    f"bob {'ab' * 16} 0 {'cd' * 16}\nann {'00' * 32} 255 {'ff' * 32}".encode(),
    *corpus_of("device_pins"),
]
NEW: Final = Pin(b"r" * 32, 7, b"h" * 32)


def _check_pins(data: bytes) -> None:
    """An added pin is found, and no other is lost; or one UsageError."""
    with folder() as place:
        files = KeyFiles(place)
        path = place / OTHER / "pins"
        path.parent.mkdir()
        path.write_bytes(data)
        try:
            before = files.pins(OTHER)
        except UsageError as error:
            assert is_one_line(error)
            return
        files.pin(OTHER, "new", NEW)
        assert files.pins(OTHER) == before | {"new": NEW}
        chain = path.with_name("ann.chain")
        chain.write_bytes(data)
        links = files.chain(OTHER, "ann")
        files.keep_chain(OTHER, "ann", links)
        assert files.chain(OTHER, "ann") == links


device_pins = Target(
    "device_pins",
    changed(PINS),
    _check_pins,
    examples=30,
    of_bytes=bytes,
    seeds=PINS,
    quick=40,
)


# --- backups --------------------------------------------------------------------------------------
_MANIFEST: Final = manifest.Manifest(
    manifest.FORMAT, "1.0", 1, PARTITIONS, 2, 3, "ab" * 32,
    {"logs/00.sqlite": manifest.File(4096, "cd" * 32), "server.key": manifest.File(1, "")},
)  # fmt: skip
MANIFESTS: Final = [
    json.dumps(msgspec.to_builtins(_MANIFEST), indent=1).encode(),
    *corpus_of("manifests"),
]


def _check_manifest(data: bytes) -> None:
    """A description whose files are all below the backup's directory, or one StartError."""
    with folder() as place:
        (place / manifest.NAME).write_bytes(data)
        try:
            found = manifest.read(place)
        except StartError:
            return
        for name in found.files:
            assert (place / name).resolve().is_relative_to(place.resolve())
            assert name.isprintable()
        shutil.rmtree(place)
        place.mkdir()
        manifest.write(place, found)
        assert manifest.read(place) == found


manifests = Target(
    "manifests",
    changed(MANIFESTS),
    _check_manifest,
    examples=40,
    of_bytes=bytes,
    seeds=MANIFESTS,
    quick=100,
)


# --- logs of other programs -----------------------------------------------------------------------
LOGS: Final = [
    b'{"room": "lobby", "time": "2026-01-02T03:04:05Z", "sender": "ann", "body": "hi"}\n',
    (
        b'{"room": "lobby", "time": "0001-01-01", "sender": "ann", "body": "aGk=",'
        b' "encoding": "base64", "content_type": "text/x"}\n'
    ),
    (
        b"--- Log opened Fri Jan 02 03:04:05 2026\n03:04 <@ann> hi \xff\n03:04:05  * bob waves\n"
        b"--- Day changed Sat Jan 03 2026\n23:59 < bob> late\n"
    ),
    (
        b"2026-01-02 03:04:05\tann\thi\n2026-01-02 03:04:05\t*\tbob waves\n"
        b"2026-01-02 03:04:05\t-->\tbob has joined\n"
    ),
    *corpus_of("foreign_logs"),
]
Parser = Callable[[Iterable[str]], Iterator[foreign_lines.Read]]
PARSERS: Final[Sequence[Parser]] = (
    lambda lines: foreign_lines.json_lines(lines, None, NOW_MS),
    lambda lines: foreign_lines.irssi(lines, "lobby", NOW_MS),
    lambda lines: foreign_lines.weechat(lines, "lobby", NOW_MS),
)


def _check_log(data: bytes) -> None:
    """Messages that can be stored, or one UsageError, whatever kind of log it should be."""
    for parse in PARSERS:
        for mixed in (False, True):
            lines = foreign_lines.decoded(data.splitlines(keepends=True), mixed=mixed)
            try:
                for read in parse(lines):
                    assert is_handle(read.room)
                    assert 0 <= read.time_ms <= NOW_MS + foreign_lines.FUTURE_MS
                    assert len(read.body) <= limits.BODY_BYTES_MAX
                    assert len(read.content_type.encode()) <= limits.CONTENT_TYPE_BYTES_MAX
            except UsageError as error:
                assert is_one_line(error)


foreign_logs = Target(
    "foreign_logs",
    changed(LOGS),
    _check_log,
    examples=60,
    of_bytes=bytes,
    seeds=LOGS,
    quick=1000,
)
TARGETS: Final = (
    aliases, lineages, device_keys, device_pins, manifests, foreign_logs,
)  # fmt: skip
