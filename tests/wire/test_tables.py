"""The tables of docs/protocol.md and the numbers in its prose are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay import limits
from relay.wire import cipher, connection, frames, identity, messages, resumption, tables, timing
from relay.wire.codes import CloseCode, ErrorCode, may_reconnect
from relay.wire.envelopes import Op
from relay.wire.phases import Phase

PAGE_FILE = Path(__file__).parent.parent.parent / "docs" / "protocol.md"
PAGE = PAGE_FILE.read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())


def test_the_page_is_up_to_date() -> None:
    assert tables.filled(PAGE) == PAGE, "run: python -m relay.wire.tables docs/protocol.md"


def test_filling_repairs_a_page(tmp_path: Path) -> None:
    target = tmp_path / "protocol.md"
    damaged = re.sub(r"^\| (33|1000|`OPEN`) \|.*\n", "", PAGE, flags=re.MULTILINE)
    assert damaged != PAGE
    target.write_text(damaged, encoding="utf-8", newline="\n")
    subprocess.run([sys.executable, "-m", "relay.wire.tables", str(target)], check=True)
    assert target.read_text(encoding="utf-8") == PAGE


def test_a_page_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="phases"):
        tables.filled(PAGE.replace("<!-- begin phases -->", ""))


def test_every_number_has_its_row() -> None:
    for code in (*CloseCode, *ErrorCode):
        assert f"| {code.value} | `{code.name}` |" in PAGE
    for op in Op:
        assert f"| {op.value} | `{op.name}` |" in PAGE
    for phase in Phase:
        assert f"| `{phase.name}` |" in PAGE


def test_close_codes_are_of_two_ranges() -> None:
    assert all(1000 <= code < 3000 for code in CloseCode)
    assert [may_reconnect(code) for code in (None, 999, 1000, 1999, 2000, 2001, 65_535)] == [
        True, False, True, True, False, False, False,
    ]  # fmt: skip
    assert ErrorCode.BUSY.explanation


@pytest.mark.parametrize(
    "sentence",
    [
        f"Record | both | {limits.RECORD_BODY_BYTES_MIN}..{limits.RECORD_BODY_BYTES_MAX:,} |",
        f"| 2 | ClientKey | client | 1..{limits.HANDSHAKE_BODY_BYTES_MAX} |",
        f"Content ≤ {limits.RECORD_CONTENT_BYTES_MAX:,} bytes",
        f"inner ≤ {limits.RECORD_INNER_BYTES_MAX:,}",
        f"ext`<u16 ≤ {messages.EXT_BYTES_MAX}>`",
        f"ticket`<u16: 0 or ≤ {messages.TICKET_BYTES_MAX}>`",
        f"the {messages.BEFORE_NONCE_BYTES} bytes of the body before the nonce",
        f"pow_bits, 0..{messages.POW_BITS_MAX}",
        f"asks for at most {messages.POW_BITS_MAX}",
        f"{identity.MODULUS_BITS_MIN} to {identity.MODULUS_BITS_MAX} bits",
        f"e = {identity.EXPONENT}",
        f"| 5 | ping | 0..{connection.PING_BYTES_MAX} bytes |",
        f"at most {resumption.TICKETS_MAX} per connection",
        f"at most {limits.ENVELOPE_FIELDS_MAX} elements",
        f"nested at most {limits.ENVELOPE_DEPTH_MAX} deep",
        f"at most {limits.ENVELOPES_PER_RECORD_MAX} envelopes",
        f"at most {limits.BODY_BYTES_MAX:,} bytes",
    ],
)
def test_limits_in_the_prose(sentence: str) -> None:
    assert sentence in WORDS


def test_the_numbers_of_keys_and_deadlines_in_the_prose() -> None:
    bounds, waits = cipher.RecordLimits(), timing.Timing()
    assert (bounds.records_max, bounds.bytes_max) == (2**22, 2**34)
    assert "2^22 records, 2^34 bytes of frames, 1 hour" in WORDS
    assert (bounds.receive_records_max, bounds.receive_bytes_max) == (2**23, 2**35)
    assert "beyond 2^23 records or 2^35 bytes" in WORDS
    assert f"fewer than {bounds.key_update_records_min} records" in WORDS
    assert f"less than {bounds.key_update_interval_s_min:.0f} s" in WORDS
    assert f"ClientKey {waits.client_key_s:.0f} s" in WORDS
    assert f"the whole handshake {waits.handshake_s:.0f} s" in WORDS
    assert f"no whole record for {waits.ping_after_s:.0f} s" in WORDS
    assert f"waits up to {waits.close_wait_s:.0f} s" in WORDS
    assert waits.pings_unanswered_max == 2
    assert "30 s after two unanswered" in WORDS


def test_the_types_of_frames_and_records_in_the_prose() -> None:
    for kind in frames.FrameType:
        name = kind.name.title().replace("_", "")
        shown = "0x10" if kind == frames.FrameType.RECORD else str(kind.value)
        assert f"| {shown} | {name} |" in PAGE
    for record in cipher.RecordType:
        assert f"| {record.value} | {record.name.lower()} |" in PAGE
