"""Statements of docs/protocol.md outside of its tables, each compared with the code."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from relay import limits
from relay.chat import names
from relay.chat.accounts import answers, preferences
from relay.chat.accounts.chain import LINKS_MAX
from relay.chat.accounts.links import LINK_BYTES_MAX
from relay.chat.relations import REACTION_BYTES_MAX
from relay.chat.rooms import shown
from relay.chat.rooms.state import MEMBERS_MAX, PEOPLE_MAX
from relay.client.backoff import RETRY_AFTER_S_MAX
from relay.client.connection_deadlines import LOGIN_S
from relay.client.requests import RETRY_S
from relay.errors import EnvelopeError
from relay.server.worker.connection.requests.devices import LINKS_PER_ANSWER, NAMES_PER_ANSWER
from relay.server.worker.connection.requests.next_key import PROOFS_MAX
from relay.server.worker.connection.requests.registration import ATTEMPTS_MAX
from relay.server.worker.connection.services import LOGIN_S as SERVER_LOGIN_S
from relay.server.worker.home.followers.rosters import REST_S_MAX, REST_S_PER_NAME
from relay.store.producers import PRODUCER_DAYS
from relay.store.reading.reader import CONTROLS_PASSED_MAX
from relay.store.search.words import WORDS_MAX
from relay.wire.codes import ErrorCode
from relay.wire.endpoint import CLOSE_DRAIN_BYTES_MAX
from relay.wire.envelopes import Hello, Register
from relay.wire.packing import (
    CLIENT_SHAPES,
    LIST_ITEMS_MAX,
    SERVER_SHAPES,
    pack,
    unpack_client,
)

ROOT = Path(__file__).parent.parent
WORDS = " ".join((ROOT.parent / "docs" / "protocol.md").read_text(encoding="utf-8").split())
HEX = re.compile(r"([0-9a-f]{2})*")
LOGIN_INNER_BYTES_MAX = limits.LOGIN_RECORD_BODY_BYTES_MAX - limits.TAG_BYTES
NAME = "n" * limits.NAME_CHARS_MAX
LONGEST_HELLO = Hello(NAME, bytes(16), "\U0001f600" * 64, "a" * 64, bytes(32), bytes(64))
LONGEST_REGISTER = Register(
    limits.U32_MAX, NAME, bytes(32), bytes(64), bytes(LINK_BYTES_MAX), bytes(32)
)


@pytest.mark.parametrize(
    "sentence",
    [
        f"and {LOGIN_S:.0f} s more until WELCOME",
        f"more than {CLOSE_DRAIN_BYTES_MAX // 1024**2} MiB",
        f"more than {limits.HISTORY_ON_JOIN_MAX:,} is refused with `BAD_REQUEST`",
        f"more than {limits.PAGE_ENTRIES_MAX} counts as {limits.PAGE_ENTRIES_MAX}",
        f"An envelope has at most {limits.ENVELOPE_FIELDS_MAX} elements, the op counted",
        f"{limits.ENVELOPE_FIELDS_MAX} elements from a client and {LIST_ITEMS_MAX} from a server",
        f"has at most {limits.DISPLAY_NAME_CHARS_MAX} code points",
        f"(and so at most {4 * limits.DISPLAY_NAME_CHARS_MAX} bytes)",
        f"at most {names.COMBINING_IN_A_ROW_MAX} of those in succession",
        f"up to {CONTROLS_PASSED_MAX:,} of them",
        f"a connection joins at most {limits.LOGS_PER_CONNECTION_MAX}",
        (
            "all arrays of a client's envelope together, itself included, have at most"
            f" {limits.ENVELOPE_VALUES_MAX}"
        ),
        f"used more than {limits.REPEATS_BACK_MAX:,} messages of this producer ago",
        f"({PRODUCER_DAYS} days after its last message)",
        f"A server sends at most {limits.RETRY_MS_MAX:,}",
        f"for {RETRY_S[ErrorCode.UNAVAILABLE]:.0f} s after `UNAVAILABLE`",
        f"of which at most {RETRY_AFTER_S_MAX:.0f} count",
        f"lists the first {limits.ROSTER_NAMES_MAX} of `total`",
        f"room of more than {limits.ROSTER_NAMES_MAX} members",
        f"collected for {1000 * REST_S_PER_NAME:.0f} ms per member, at most {REST_S_MAX:.0f} s",
        f"would exceed {limits.PAGE_BYTES_MAX:,} bytes",
        f"more than {limits.SEARCH_COUNT_MAX} counts as {limits.SEARCH_COUNT_MAX}",
        f"at most {WORDS_MAX} words or phrases",
        f"among its last {limits.EDITS_SHOWN_MAX},",
        f"can be edited {limits.EDITS_MAX} times",
        f"`LIMIT`, `arg` {limits.EDITS_MAX}",
        f"server accepts at most {ATTEMPTS_MAX} requests before HELLO",
        f"A connection may ask {PROOFS_MAX} times",
        f"CHAIN has at most {LINKS_PER_ANSWER} links",
        f"A chain has at most {LINKS_MAX} links",
        f"index + number of devices before it < {LINKS_MAX}",
        f"an array of names, at most {NAMES_PER_ANSWER} |",
        f"`[[[log, epoch, seq], ...], end]`: at most {NAMES_PER_ANSWER},",
        f"by], ...], after]`: at most {answers.INVITATIONS_MAX};",
        f"At most {preferences.BLOCKED_MAX} people can be blocked",
        f"at most {shown.PEOPLE_PER_ANSWER} people with names above",
        f"version], ...], where to continue, end]`: at most {shown.ROOMS_PER_ANSWER} of the rooms",
        f"unread], ...], where to continue, end]`: at most {shown.ROOMS_PER_ANSWER} of the rooms",
        f"among the newest {shown.UNREAD_LOOKED_AT} entries",
        f"`LIMIT` ({MEMBERS_MAX} members, {PEOPLE_MAX} people)",
        f"| 1..{REACTION_BYTES_MAX} bytes of text without control characters |",
        f"HELLO (section 6) {SERVER_LOGIN_S:.0f} s after the handshake",
        f"inner part of a client's record has at most {LOGIN_INNER_BYTES_MAX} bytes",
        f"HELLO has {len(pack(LONGEST_HELLO))} bytes and a REGISTER {len(pack(LONGEST_REGISTER))};",
    ],
)
def test_numbers(sentence: str) -> None:
    assert sentence in WORDS


def test_the_longest_of_these_envelopes_are_legal() -> None:
    for longest in (LONGEST_HELLO, LONGEST_REGISTER):
        assert unpack_client(pack(longest)) == [longest]
    for longer in (
        LONGEST_HELLO._replace(agent="a" * 65),
        LONGEST_HELLO._replace(display="d" * 257),
        LONGEST_REGISTER._replace(link=bytes(LINK_BYTES_MAX + 1)),
    ):
        with pytest.raises(EnvelopeError):
            unpack_client(pack(longer))


def test_every_reserved_handle_is_listed() -> None:
    found = re.search(r"operator's are reserved: (.*?); a server MAY", WORDS)
    assert found is not None
    listed = re.findall(r"`([^`]+)`", found.group(1))
    assert listed
    assert all(map(names.is_reserved, listed))


def test_every_refused_character_of_a_display_name_is_of_a_class_on_the_page() -> None:
    found = re.search(
        r"no character of the categories (.*?) \(by .*? of their own: (.*?)\. Two", WORDS
    )
    assert found is not None
    categories = set(re.findall(r"\b[A-Z][a-z]\b", found.group(1)))
    single: set[str] = set()
    for first, last in re.findall(r"U\+([0-9A-F]+)(?: to U\+([0-9A-F]+))?", found.group(2)):
        single |= set(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    for point in range(0x110000):
        char = chr(point)
        named = unicodedata.category(char) in categories or char in single
        assert names.is_display(f"a{char}b") is not named, hex(point)


def test_a_request_number_is_one_or_more() -> None:
    """0 only in ERROR, where it means none."""
    for shape in (CLIENT_SHAPES | SERVER_SHAPES).values():
        fields = list(shape.type.__annotations__)
        if "request" in fields:
            check = shape.checks[fields.index("request")]
            assert check(1)
            assert check(limits.U32_MAX)
            assert check(0) is (shape.type.__name__ == "Error")


# --- section 9: the shapes of the vectors ---------------------------------------------------------
def load(name: str) -> dict[str, Any]:
    """Parse as the least capable parser does: every number a 64-bit float."""

    def number(text: str) -> int:
        assert float(text) == int(text), f"{name}: {text} loses digits in other parsers"
        return int(text)

    def constant(text: str) -> None:
        raise AssertionError(f"{name}: {text} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs), f"{name}: a key twice"
        return dict(pairs)

    loaded: dict[str, Any] = json.loads(
        (ROOT / "vectors" / f"{name}.json").read_text(encoding="utf-8"),
        parse_int=number,
        parse_constant=constant,
        object_pairs_hook=once,
    )
    return loaded


def is_hex(value: object) -> bool:
    return isinstance(value, str) and HEX.fullmatch(value) is not None


def test_shape_of_the_server_key() -> None:
    key = load("server_key")
    assert set(key) == {"n", "e", "d", "p", "q"}
    assert all(re.fullmatch("[0-9a-f]+", value) for value in key.values())


def test_shape_of_the_handshakes() -> None:
    vector = load("handshake")
    assert set(vector) == {"about", "handshakes"}
    for one in vector["handshakes"]:
        assert set(one) == {
            "name", "pow_bits", "mode", "ext", "fingerprint", "inputs", "frames", "schedule",
        }  # fmt: skip
        offers = "ticket" in one["inputs"]
        assert ("psk" in one["inputs"]) == ("binder" in one["schedule"]) == offers
        assert one["mode"] in (0, 1)
        assert set(one["frames"]) == {"f1", "f2", "f3", "f4"}
        for part in ("inputs", "frames", "schedule"):
            assert all(map(is_hex, one[part].values()))
        assert {"session_key", "mlkem_seed"} <= set(one["inputs"])
        assert {"x25519_shared", "mlkem_shared", "login_binding", "HS"} <= set(one["schedule"])


def test_shape_of_the_next_key() -> None:
    vector = load("next_key")
    assert set(vector) == {"about", "proofs"}
    for one in vector["proofs"]:
        assert set(one) == {"secret", "challenge", "spki_hash", "next_spki_hash", "proof"}
        assert all(map(is_hex, one.values()))


def test_shape_of_the_producers() -> None:
    vector = load("producers")
    assert set(vector) == {"about", "producers"}
    for one in vector["producers"]:
        assert set(one) == {"root", "name", "secret", "producer"}
        assert is_hex(one["secret"])
        assert is_hex(one["producer"])
        assert len(bytes.fromhex(one["producer"])) == 16


@pytest.mark.parametrize("name", ["records", "key_update"])
def test_shape_of_the_records(name: str) -> None:
    vector = load(name)
    assert set(vector) == {"about", "directions"}
    assert [one["name"] for one in vector["directions"]] == ["client to server", "server to client"]
    for one in vector["directions"]:
        assert set(one) == {"name", "ap_0", "generations"}
        for generation in one["generations"]:
            assert set(generation) == {"ap", "key", "iv", "records"}
            for record in generation["records"]:
                assert set(record) == {"nonce", "type", "content", "frame"}
                assert all(is_hex(record[part]) for part in ("nonce", "content", "frame"))
                assert type(record["type"]) is int


def is_value(value: object) -> bool:
    """Return whether it is a VALUE of section 9."""
    if isinstance(value, list):
        return all(map(is_value, value))
    if isinstance(value, dict):
        ((kind, text),) = value.items()
        if kind == "bin":
            return is_hex(text)
        return kind == "int" and type(text) is str and int(text) > 2**53 - 1
    return value is None or type(value) in (bool, str, int)


def test_shape_of_the_envelopes() -> None:
    vector = load("envelopes")
    assert set(vector) == {"about", "envelopes"}
    large = 0
    for one in vector["envelopes"]:
        assert set(one) == {"name", "op", "fields", "packed"}
        assert is_value(one["fields"])
        assert is_hex(one["packed"])
        large += '{"int": "9223372036854775807"}' in json.dumps(one["fields"])
    assert large, "the largest counter is among them"


def test_shape_of_what_was_drawn() -> None:
    for values in load("randomised").values():
        assert all(map(is_hex, values))
