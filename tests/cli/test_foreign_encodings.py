"""Files to import with other encodings or types: nothing becomes what was not meant."""

from __future__ import annotations

import codecs
import io
import json

import pytest

from relay.cli.server_commands.foreign_lines import decoded, irssi, json_lines
from relay.errors import UsageError

NOW_MS = 1_790_000_000_000
LOG = "--- Log opened Tue Sep 01 10:00:00 2020\n10:01 <ann> {}\r\n10:02 <bob> ok\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252"])
@pytest.mark.parametrize("bom", [b"", codecs.BOM_UTF8], ids=["", "bom"])
def test_a_log_of_a_chat(encoding: str, bom: bytes) -> None:
    text = "Grüße, señor" + (" – 5 €" if encoding != "latin-1" else "")
    file = io.BytesIO(bom + LOG.format(text).encode(encoding))
    found = list(irssi(decoded(file, mixed=True), "old", NOW_MS))
    assert [one.body.decode() for one in found] == [text, "ok"]


def test_each_line_has_its_own_encoding() -> None:
    lines = ["ü".encode(), "ü".encode("latin-1"), b"\x81"]
    assert list(decoded(lines, mixed=True)) == ["ü", "ü", "\x81"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_json_lines_are_utf_8(encoding: str) -> None:
    file = io.BytesIO('{"room": "old", "body": "ü"}\n'.encode(encoding))
    with pytest.raises(UsageError, match="line 1: not UTF-8"):
        list(json_lines(decoded(file, mixed=False), None, NOW_MS))


@pytest.mark.parametrize("field", ["room", "sender", "body", "content_type"])
@pytest.mark.parametrize("value", [5, None, ["ann"], {"ann": 1}, float("nan")])
def test_a_value_of_another_type_is_refused(field: str, value: object) -> None:
    """It was imported as its spelling in Python."""
    good = {"room": "old", "sender": "ann", "body": "hi", "time": "2020-09-01T10:00:00Z"}
    assert len(list(json_lines([json.dumps(good)], None, NOW_MS))) == 1
    with pytest.raises(UsageError, match="line 1: not a message as JSON"):
        list(json_lines([json.dumps(good | {field: value})], None, NOW_MS))
