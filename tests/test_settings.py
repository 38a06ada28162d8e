"""Settings: precedence, sources, and what is said about mistakes."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from relay.errors import UsageError
from relay.settings import (
    SHOWN_CHARS_MAX,
    Settings,
    as_toml,
    declarations,
    load,
)
from relay.settings_table import markdown


def test_precedence(tmp_path: Path) -> None:
    """Flag, then environment, then file, then a convention, then the default; and it is told."""
    file = tmp_path / "relay.toml"
    file.write_text(
        '[server]\nworkers = 3\nbind = ["127.0.0.1:1", "[::1]:2"]\nkey_bits = 4096\n'
        "graceful_timeout_s = 5\n"
    )
    loaded = load(
        {"server.workers": "5", "server.key_bits": None, "server.bind": ()},
        {
            "WEB_CONCURRENCY": "2",
            "RELAY_SERVER__WORKERS": "4",
            "RELAY_SERVER__KEY_BITS": "2048",
            "STATE_DIRECTORY": "/var/lib/relay:/other",
            "RELAY_KNOWN_SERVERS": "is the client's",
        },
        file,
    )
    server = loaded.settings.server
    assert (server.workers, server.key_bits) == (5, 2048)
    assert server.bind == ("127.0.0.1:1", "[::1]:2")
    assert server.graceful_timeout_s == 5.0
    assert loaded.settings.store.data == "/var/lib/relay"
    assert {path: loaded.sources[path] for path in ("server.workers", "server.key_bits")} == {
        "server.workers": "--workers",
        "server.key_bits": "RELAY_SERVER__KEY_BITS",
    }
    assert loaded.sources["server.bind"] == str(file)
    assert loaded.sources["store.data"] == "STATE_DIRECTORY"
    assert loaded.sources["log.level"] == "default"


def test_web_concurrency_is_a_default(tmp_path: Path) -> None:
    assert load({}, {"WEB_CONCURRENCY": "7"}, None).settings.server.workers == 7
    file = tmp_path / "relay.toml"
    file.write_text("[server]\nworkers = 3\n")
    assert load({}, {"WEB_CONCURRENCY": "7"}, file).settings.server.workers == 3


def test_lists_in_the_environment() -> None:
    loaded = load({}, {"RELAY_SERVER__BIND": "127.0.0.1:1, [::1]:2"}, None)
    assert loaded.settings.server.bind == ("127.0.0.1:1", "[::1]:2")


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (
            {},
            {"RELAY_SERVER__WORKER": "1"},
            "RELAY_SERVER__WORKER: no such setting; did you mean RELAY_SERVER__WORKERS?",
        ),
        (
            {},
            {"RELAY_SERVER__WORKERS": "many"},
            'WORKERS: server.workers: expected a whole number from 0 to 256, not "many"',
        ),
        ({}, {"WEB_CONCURRENCY": "-1"}, "WEB_CONCURRENCY: server.workers: expected a whole number"),
        (
            {},
            {"RELAY_SERVER__GRACEFUL_TIMEOUT_S": "nan"},
            'server.graceful_timeout_s: expected a number from 0 to 3600, not "nan"',
        ),
        ({}, {"RELAY_SERVER__BIND": " , "}, "server.bind: expected a list of one text or more"),
        (
            {},
            {"RELAY_STORE__DURABILITY": "none"},
            'store.durability: expected one of process, power, not "none"',
        ),
        ({"server.graceful_timeout_s": "x"}, {}, "--graceful-timeout: server.graceful_timeout_s:"),
        (
            {"server.workers": "9" * 1000},
            {},
            f'a whole number from 0 to 256, not "{"9" * (SHOWN_CHARS_MAX - 1)}...',
        ),
    ],
)
def test_mistakes(flags: dict[str, object], environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(flags, environment, None)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[server]\nwrokers = 1\n",
            "server.wrokers: no such setting; did you mean server.worker",
        ),
        ("[sever]\nworkers = 1\n", "sever: no such section; did you mean server?"),
        ("[server]\ndurability = 'power'\n", "did you mean store.durability?"),
        ("workers = 1\n", "workers: no such section"),
        ("[server]\nworkers = '1x'\n", "server.workers: expected a whole"),
        ("[server]\nworkers = true\n", "a whole number from 0 to 256, not true"),
        ("[server]\nruntime = 2026-01-02\n", 'server.runtime: expected text, not "2026-01-02"'),
        ("[server]\nworkers = \n", "is not valid TOML"),
        ("[server]\nbind = [1]\n", "server.bind: expected a list of one text or more, not [1]"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load({}, {}, file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load({}, {}, tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load({}, {}, tmp_path / "binary")


def test_every_setting_is_declared_well() -> None:
    """Each has a reason, a variable that sets it, and a default of its own type."""
    paths = set()
    for declaration in declarations():
        paths.add(declaration.path)
        assert declaration.why.endswith(".")
        text = as_toml(declaration.default)
        section = tomllib.loads(f"[{declaration.section}]\n{declaration.key} = {text}\n")
        value = section[declaration.section][declaration.key]
        given = ",".join(value) if isinstance(value, list) else str(value)
        loaded = load({}, {declaration.variable: given}, None)
        assert loaded.sources[declaration.path] == declaration.variable
        assert loaded.settings == load({}, {}, None).settings
    assert len(paths) == sum(
        len(getattr(Settings(), name).__struct_fields__) for name in Settings().__struct_fields__
    )
    assert "server.workers" in paths


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == markdown()


def test_the_data_directory_has_a_default() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "STATE_DIRECTORY"}
    assert load({}, environment, None).settings.store.data.endswith("relay")
