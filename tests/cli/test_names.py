"""Default names, and names that a user typed."""

from __future__ import annotations

import getpass
import io

import click
import pytest

from relay.chat.names import is_handle, is_reserved
from relay.cli.arguments import names


@pytest.mark.parametrize(
    ("login", "name"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("jörg.müller", "jorg-muller"),
        ("DOMAIN\\bob smith", "domain-bob-smith"),
        ("_www", "www"),
        ("x" * 40, "x" * 32),
    ],
)
def test_a_person_goes_by_the_login_name(
    monkeypatch: pytest.MonkeyPatch, login: str, name: str
) -> None:
    """Converted to a legal name."""
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    assert names.person_name() == name


@pytest.mark.parametrize("login", ["root", "admin", "x", "", "Ж", "---", "用户", "a" * 32])
def test_every_default_is_legal(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    """Whatever the login name; a reserved one gets a suffix, and so do all names of programs."""
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    for name in (names.person_name(), names.program_name()):
        assert is_handle(name)
        assert not is_reserved(name)
    assert names.program_name() != names.program_name()


@pytest.mark.parametrize("login", ["root", "x", ""])
def test_nobody_gets_an_invented_name_for_good(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    """A claimed name is permanent: without a terminal to ask, it has to be given."""
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(click.UsageError, match="give --name"):
        names.name_to_claim()


def test_no_login_name_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a numeric user."""

    def fail() -> str:
        raise KeyError("uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert is_handle(names.person_name())


def test_typed_names_are_canonical_or_refused() -> None:
    """Upper case is folded; other illegal characters are explained."""
    assert names.checked_name("Alice") == "alice"
    assert names.checked_name(None) is None
    assert names.checked_room("Lobby") == "lobby"
    assert names.checked_room("admin") == "admin"
    with pytest.raises(click.UsageError, match="2 to 32"):
        names.checked_name("a b")
    with pytest.raises(click.UsageError, match="reserved"):
        names.checked_name("Admin")
