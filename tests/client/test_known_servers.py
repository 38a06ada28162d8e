"""relay.client.known_servers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from relay.client.known_servers import (
    PATH_VARIABLE,
    KnownServers,
    Pin,
    default_path,
    format_pin,
    match,
    parse,
)
from relay.errors import UsageError

KEY = "a" * 52
OTHER = "b" * 51 + "q"


def test_parse_passes_over_what_is_not_ours() -> None:
    """Comments, empty lines, other key types; a comment behind the fingerprint is allowed."""
    text = (
        "# a comment\n\n"
        f"[one.example]:7475 relay-key-v1 {KEY} my server\n"
        "[two.example]:22 ssh-ed25519 AAAA\n"
        f"[::1]:80 relay-key-v1 {OTHER}\n"
    )
    assert parse(text, Path("x")) == [Pin("one.example", 7475, KEY), Pin("::1", 80, OTHER)]


@pytest.mark.parametrize(
    "line",
    [
        "[host]:7475 relay-key-v1",
        "[host]:7475 relay-key-v1 short",
        f"[host]:x relay-key-v1 {KEY}",
        f"host relay-key-v1 {KEY}",
    ],
)
def test_a_damaged_pin_is_an_error(line: str) -> None:
    """It names file and line: a pin that silently does not count would ask again."""
    with pytest.raises(UsageError, match="known, line 2"):
        parse(f"# first\n{line}\n", Path("known"))


def test_match_is_by_host_and_port() -> None:
    """Case of the host does not count; the first line wins."""
    pins = [Pin("a", 1, KEY), Pin("a", 2, OTHER), Pin("a", 1, OTHER)]
    assert match(pins, "A", 1) == Pin("a", 1, KEY)
    assert match(pins, "a", 2) == Pin("a", 2, OTHER)
    assert match(pins, "a", 3) is None


def test_pin_makes_a_private_file(tmp_path: Path) -> None:
    """0600 in a directory made for it; found again by another instance."""
    path = tmp_path / "new" / "known_servers"
    KnownServers(path).pin("Host", 7475, KEY)
    assert KnownServers(path).find("host", 7475) == Pin("host", 7475, KEY)
    assert path.read_text() == format_pin(Pin("host", 7475, KEY)) + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_pin_keeps_every_other_line(tmp_path: Path) -> None:
    """Also the ones that it does not understand, and a missing last newline."""
    path = tmp_path / "known_servers"
    path.write_text("# mine\n[x]:1 future-key zzz")
    KnownServers(path).pin("h", 1, KEY)
    KnownServers(path).pin("h", 1, KEY)
    assert path.read_text() == f"# mine\n[x]:1 future-key zzz\n[h]:1 relay-key-v1 {KEY}\n"


def test_pin_never_replaces_a_key(tmp_path: Path) -> None:
    """Another key for the same place is refused, and the file stays as it was."""
    path = tmp_path / "known_servers"
    known = KnownServers(path)
    known.pin("h", 1, KEY)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another key"):
        known.pin("h", 1, OTHER)
    assert path.read_bytes() == before


def test_unreadable_and_unwritable_are_one_line(tmp_path: Path) -> None:
    """A directory in its place, text that is not UTF-8, a parent that is a file."""
    with pytest.raises(UsageError, match="cannot read"):
        KnownServers(tmp_path).find("h", 1)
    path = tmp_path / "known_servers"
    path.write_bytes(b"\xff\n")
    with pytest.raises(UsageError, match="cannot read"):
        KnownServers(path).find("h", 1)
    path.write_text("")
    with pytest.raises(UsageError, match="cannot"):
        KnownServers(path / "below").pin("h", 1, KEY)


def test_the_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$RELAY_KNOWN_SERVERS wins over the user's directory."""
    monkeypatch.setenv(PATH_VARIABLE, os.fspath(tmp_path / "k"))
    assert default_path() == tmp_path / "k"
    monkeypatch.delenv(PATH_VARIABLE)
    assert default_path().name == "known_servers"
