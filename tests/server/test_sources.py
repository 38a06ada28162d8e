"""Which addresses count as one source."""

from __future__ import annotations

import pytest

from relay.server.sources import Proxies, is_loopback, named_by, source_of


def test_sources() -> None:
    assert source_of("192.0.2.7") == "192.0.2.7"
    assert source_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::1")
    assert source_of("2001:db8:1:3::1") != source_of("2001:db8:1:2::1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2")
    assert source_of("") == ""
    assert source_of("not an address") == "not an address"


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1")))
    assert not any(map(is_loopback, ("192.0.2.7", "::2", "::ffff:192.0.2.7", "", "localhost")))


def test_whose_word_counts() -> None:
    """An address is the same in every notation."""
    proxies = Proxies(("10.0.0.0/8", "2001:db8::/32"))
    assert all(map(proxies.has, ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1", "2001:db8::1%eth0")))
    assert not any(map(proxies.has, ("11.1.2.3", "::ffff:11.1.2.3", "2001:db9::1", "unix")))
    assert Proxies(("unix",)).has("unix")
    assert not Proxies(("none",)).has("10.1.2.3")


@pytest.mark.parametrize(
    "address",
    [None, "127.0.0.1", "127.9.8.7", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"],  # noqa: S104
)
def test_a_header_that_names_the_machine_of_its_proxy(address: str | None) -> None:
    for proxy in ("192.0.2.7", "unix"):
        assert named_by(proxy, address) == proxy
        assert named_by(proxy, "198.51.100.3") == "198.51.100.3"
        assert named_by(proxy, "2001:db8::1") == "2001:db8::1"
