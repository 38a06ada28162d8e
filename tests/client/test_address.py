"""relay.client.address."""

from __future__ import annotations

import pytest

from relay.client.address import Address, is_fingerprint, parse_address
from relay.errors import UsageError

KEY = "a" * 51 + "q"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("relay://example.org", Address("example.org", 7475, None)),
        ("relay://example.org:80", Address("example.org", 80, None)),
        ("example.org:80", Address("example.org", 80, None)),
        (f"relay://{KEY}@127.0.0.1:7475", Address("127.0.0.1", 7475, KEY)),
        (f"relay://{KEY}@[::1]:9", Address("::1", 9, KEY)),
        ("relay://[fe80::1%eth0]", Address("fe80::1%eth0", 7475, None)),
        ("relay://Example.ORG/", Address("example.org", 7475, None)),
        ("  relay://a-b_c.d \n", Address("a-b_c.d", 7475, None)),
        (f"relay://{'a' * 63}.b.", Address(f"{'a' * 63}.b.", 7475, None)),
        ("relay://[0:0:0:0:0:0:0:1]", Address("::1", 7475, None)),
        ("relay://[2001:DB8:0::0:A]", Address("2001:db8::a", 7475, None)),
        ("relay://[FE80:0::1%Eth0]", Address("fe80::1%Eth0", 7475, None)),
        ("relay://[::ffff:127.0.0.1]", Address("127.0.0.1", 7475, None)),
        ("relay://[::FFFF:7f00:1]", Address("127.0.0.1", 7475, None)),
        ("relay://127.1:80", Address("127.0.0.1", 80, None)),
        ("relay://0x7f000001", Address("127.0.0.1", 7475, None)),
        ("relay://2130706433", Address("127.0.0.1", 7475, None)),
        ("relay://0X1FF.0.0.1", Address("0x1ff.0.0.1", 7475, None)),
        ("relay://256.0.0.1", Address("256.0.0.1", 7475, None)),
        ("relay://1.2.3.4.5", Address("1.2.3.4.5", 7475, None)),
    ],
)
def test_legal(text: str, address: Address) -> None:
    """Each form is parsed, and its string form parses to the same."""
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "host"),
        ("relay://", "host"),
        ("relay://:80", "host"),
        ("http://example.org", "relay://"),
        ("relay://host:0", "port"),
        ("relay://host:65536", "port"),
        ("relay://host:", "port"),
        ("relay://host:8x", "port"),
        ("relay://host:٣", "port"),
        ("relay://host:999999", "port"),
        ("relay://::1", "brackets"),
        ("relay://[::1", "IPv6"),
        ("relay://[::1]80", "IPv6"),
        ("relay://[zz]", "IPv6"),
        ("relay://[81%0]", "IPv6"),
        ("relay://[127.0.0.1]", "IPv6"),
        ("relay://[fe80]", "IPv6"),
        ("relay://[:::::]", "IPv6"),
        ("relay://[::1%]", "IPv6"),
        ("relay://ho st", "host"),
        ("relay://host/path", "host"),
        ("relay://a..b", "host"),
        ("relay://.b", "host"),
        ("-", "host"),
        ("-5:7475", "host"),
        ("relay://a.-b", "host"),
        (f"relay://{'a' * 64}.b", "host"),
        ("relay://short@host", "fingerprint has 5 characters instead of 52"),
        (f"relay://{KEY.upper()}@host", "fingerprint must be in lower case"),
        (f"relay://{'a' * 52}b@host", "fingerprint has 53 characters instead of 52"),
        (f"relay://{'a' * 9}1{'a' * 42}@host", "character 10 of the fingerprint is '1'"),
        (f"relay://{'a' * 51}b@host", "last character of the fingerprint is 'b'"),
        ("relay://@host", "fingerprint has 0 characters"),
        ("relay://höst", "host"),
    ],
)
def test_illegal(text: str, why: str) -> None:
    """A one-line error with the reason."""
    with pytest.raises(UsageError, match=why) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


def test_a_fingerprint_has_one_spelling() -> None:
    """The last of 52 characters carries one bit: a or q."""
    assert is_fingerprint("a" * 52)
    assert is_fingerprint(KEY)
    assert not is_fingerprint("a" * 51 + "c")
    assert not is_fingerprint(KEY + "\n")
