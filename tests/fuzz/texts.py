"""Targets with input from users and files: settings, pinned keys, addresses, names."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from relay import configuration
from relay.chat import names
from relay.client.address import parse_address
from relay.client.trust import known_servers
from relay.declarations import as_toml, declarations
from relay.errors import UsageError
from relay.settings import WORKERS_MAX
from tests.fuzz.inputs import EDGES, Edit, corpus_of, edited, edits
from tests.fuzz.target import Target

FINGERPRINT: Final = "a" * 51 + "q"
PATHS: Final = [declaration.path for declaration in declarations()]
DECLARED: Final = declarations()
odd_text: Final = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        (
            "",
            " ",
            "0",
            "-1",
            "1e9",
            "NaN",
            "inf",
            "1_000",
            "٣",
            "true",
            "[]",
            '["a"]',
            "{",
            "null",
            "127.0.0.1:0",
            "[::1]:7475",
            ":",
            "::",
            "~",
            "\x00",
            "a\nb",
            "é",
            "x" * 5000,
            "9" * 5000,
        )
    ),
    st.sampled_from(EDGES).map(str),
)


# --- settings -------------------------------------------------------------------------------------
def _file() -> bytes:
    lines: list[str] = []
    section = ""
    for declaration in DECLARED:
        if declaration.section != section:
            section = declaration.section
            lines.append(f"[{section}]")
        lines.append(f"{declaration.key} = {as_toml(declaration.default)}")
    return "\n".join(lines).encode()


toml_value: Final = st.one_of(
    st.sampled_from(
        ("1", "-1", "1.5", "nan", "inf", "true", '""', "[]", '[""]', "{}", "1979-05-27")
    ),
    odd_text.map(as_toml),
    st.sampled_from(EDGES).map(str),
    st.lists(odd_text, max_size=3).map(lambda items: as_toml(tuple(items))),
)
toml: Final = st.one_of(
    st.builds(edited, st.sampled_from([_file(), *corpus_of("settings")]), edits),
    st.lists(
        st.builds(
            lambda path, value: f"[{path.split('.')[0]}]\n{path.split('.')[1]} = {value}\n",
            st.sampled_from(PATHS),
            toml_value,
        ),
        max_size=3,
        unique_by=lambda line: line.split("\n")[0],
    ).map(lambda lines: "".join(lines).encode()),
    st.binary(max_size=60),
)
environment: Final = st.dictionaries(
    st.sampled_from([d.variable for d in DECLARED] + ["WEB_CONCURRENCY", "STATE_DIRECTORY"])
    | st.from_regex(r"RELAY_[A-Z_]{1,20}", fullmatch=True),
    odd_text,
    max_size=4,
)
flags: Final = st.dictionaries(
    st.sampled_from(PATHS),
    st.none() | odd_text | st.integers(-2, 2**64) | st.floats() | st.lists(odd_text, max_size=2),
    max_size=3,
)


def _check_settings(value: tuple[dict[str, Any], dict[str, str], bytes]) -> None:
    """Settings, or one UsageError with a line for each mistake."""
    given, variables, text = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "relay.toml"
        file.write_bytes(text)
        try:
            loaded = configuration.load(given, variables, file)
        except UsageError as error:
            assert isinstance(error, configuration.ConfigurationError)
            lines = str(error).split("\n")
            assert lines == error.problems, "a mistake is one line"
            assert all(0 < len(line) < 2000 for line in lines), "and can be read"
            return
    assert set(loaded.sources) == set(PATHS)
    assert loaded.settings.server.bind
    assert 0 <= loaded.settings.server.workers <= WORKERS_MAX


settings_target = Target(
    "settings",
    st.tuples(flags, environment, toml),
    _check_settings,
    of_bytes=lambda data: ({}, {}, data),
    seeds=[_file(), *corpus_of("settings")],
    quick=100,
)


# --- pinned keys ----------------------------------------------------------------------------------
PINS: Final = [
    f"[127.0.0.1]:7475 relay-key-v1 {FINGERPRINT}\n".encode(),
    f"[::1]:65535 relay-key-v1 {FINGERPRINT} a remark\n# a comment\n\n".encode(),
    f"[EXAMPLE.org]:1 relay-key-v1 {FINGERPRINT}\r\n[x]:2 relay-key-v9 whatever".encode(),
    *corpus_of("known_servers"),
]


def _check_known_servers(value: tuple[list[bytes], list[Edit], str, int]) -> None:
    """Pins, or one UsageError; an added pin is found, and no other one is lost."""
    lines, changes, host, port = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "known_servers"
        path.write_bytes(edited(b"".join(lines), changes))
        known = known_servers.KnownServers(path)
        try:
            found = known.find(host, port)
            before = known_servers.parse(path.read_bytes().decode(), path)
            if found is None:
                known.pin(host, port, FINGERPRINT)
        except UsageError as error:
            assert "\n" not in str(error)
            return
        pin = known.find(host, port)
        assert pin is not None
        assert found in (None, pin)
        after = known_servers.parse(path.read_bytes().decode(), path)
        assert after[: len(before)] == before
        assert len(after) == len(before) + (found is None)


hosts: Final = st.sampled_from(("127.0.0.1", "::1", "example.org", "x", "fe80::1%eth0"))
known = Target(
    "known_servers",
    st.tuples(
        st.lists(st.sampled_from(PINS) | st.binary(max_size=80), max_size=3),
        st.just([]) | edits,
        hosts,
        st.sampled_from((1, 2, 7475, 65_535)),
    ),
    _check_known_servers,
    of_bytes=lambda data: ([data], [], "127.0.0.1", 7475),
    seeds=PINS,
    quick=200,
)


# --- addresses and names --------------------------------------------------------------------------
ADDRESSES: Final = [
    b"relay://127.0.0.1:7475",
    f"relay://{FINGERPRINT}@example.org".encode(),
    f"relay://{FINGERPRINT}@[fe80::1%eth0]:1/".encode(),
    b"[::1]",
    b"x:0",
    *corpus_of("addresses"),
]


def _check_address(text: str) -> None:
    """An address that is the same when written and parsed again, or one UsageError of one line."""
    try:
        address = parse_address(text)
    except UsageError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable(), "it goes to a terminal"
        return
    assert parse_address(str(address)) == address
    assert str(address).isascii()
    assert 1 <= address.port <= 65_535


addresses = Target(
    "addresses",
    st.builds(
        lambda data, changes: edited(data, changes).decode("utf-8", "replace"),
        st.sampled_from(ADDRESSES),
        edits,
    )
    | st.text(max_size=80),
    _check_address,
    of_bytes=lambda data: data.decode("utf-8", "replace"),
    seeds=ADDRESSES,
    quick=20_000,
)


def _check_name(text: str) -> None:
    """An accepted name is displayed unchanged, and within the protocol's size."""
    if names.is_handle(text) or names.is_room(text):
        assert text.isascii()
        assert text.isprintable()
        assert names.normal(text) == text
    if names.is_display(text):
        assert len(text.encode()) <= 256
        assert text == text.strip()
        assert "\x1b" not in text
        assert text.replace("\u3000", " ").isprintable() or not text.isascii()


handles: Final = st.text(max_size=70) | st.from_regex(
    r"[a-z0-9][a-z0-9_-]{0,33}\n?", fullmatch=True
)
people = Target("names", handles, _check_name)
TARGETS: Final = (settings_target, known, addresses, people)
