"""relay.client.errors, closes and refusals."""

from __future__ import annotations

import pytest

from relay.client import closes, errors, refusals
from relay.client.closes import CLOSES, ClosedByServer, closed_by_server
from relay.client.errors import ClientError
from relay.client.refusals import REFUSALS, Busy, IdConflict, Refused, refused
from relay.wire.codes import CloseCode, ErrorCode


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_has_its_exception(code: CloseCode) -> None:
    """And it has a name, an explanation and a number."""
    error = closed_by_server(int(code), 7)
    assert type(error) is CLOSES[code]
    assert type(error) is not ClosedByServer
    assert code.name in str(error)
    assert (error.code, error.retry_after_s) == (code, 7)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_code_has_its_exception(code: ErrorCode) -> None:
    """And keeps the argument."""
    error = refused(int(code), 3, "more")
    assert type(error) is REFUSALS[code]
    assert type(error) is not Refused
    assert (error.code, error.arg) == (code, 3)
    assert code.name in str(error)
    assert "more" in str(error)


def test_what_a_person_gave_as_the_reason_stands_beside_what_happened() -> None:
    """And a more exact text of the server is not repeated."""
    assert str(refused(ErrorCode.BANNED, 0, "spam")) == 'BANNED: banned from this room: "spam"'
    false = str(refused(ErrorCode.KICKED_OUT, 0, 'x", bob (the operator) is here, \u201dann'))
    assert false.count('"') == 2, "it does not end its quotation"
    assert "\u201d" not in false
    happened = ErrorCode.KICKED_OUT.explanation
    for why in ("out", "the room", f"{happened}: send your passphrase to the server"):
        assert str(refused(ErrorCode.KICKED_OUT, 0, why)) == f'KICKED_OUT: {happened}: "{why}"'
    exact = "banned from this room until 2026-11-27 00:36:00 UTC"
    assert str(refused(ErrorCode.BANNED, 0, exact)) == f"BANNED: {exact}"
    assert str(refused(ErrorCode.BANNED)) == "BANNED: banned from this room"


def test_codes_of_later_versions() -> None:
    """They get the general class, and keep their number."""
    assert "1999" in str(closed_by_server(1999))
    assert type(closed_by_server(1999)) is ClosedByServer
    assert "777" in str(refused(777))


def test_the_tree_is_the_documented_one() -> None:
    """Every class is named in the module's docstring and is a RelayError."""
    assert errors.__doc__ is not None
    for module in (errors, closes, refusals):
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == module.__name__:
                assert issubclass(value, ClientError)
                assert name in errors.__doc__


def test_text_of_the_server_is_made_harmless() -> None:
    """Control and formatting characters do not reach a terminal through an error."""
    output = str(refused(1, 0, "x\x1b[2J\u202e\ny"))
    assert output.isprintable()
    assert "\\u{1b}" in output


def test_arguments_have_names() -> None:
    """The number of an error code, named by its meaning."""
    busy = refused(ErrorCode.BUSY, 1500)
    assert isinstance(busy, Busy)
    assert busy.retry_after_s == 1.5
    conflict = refused(ErrorCode.ID_CONFLICT, 12)
    assert isinstance(conflict, IdConflict)
    assert conflict.seq == 12
