"""The PROXY protocol, version 2: the examples of its specification, and other input."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.server.worker.process.accepting.proxy_header import (
    FIXED_BYTES,
    REST_BYTES_MAX,
    BadHeader,
    rest_of,
    source,
)

V4 = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000207 7f000001 9c40 1d33")


def test_an_address() -> None:
    fixed, rest = V4[:FIXED_BYTES], V4[FIXED_BYTES:]
    assert rest_of(fixed) == len(rest) == 12
    assert source(fixed, rest) == "192.0.2.7"
    local = fixed[:12] + b"\x20\x00\x00\x00"
    assert rest_of(local) == 0
    assert source(local, b"") is None


@pytest.mark.parametrize("family", [0x00, 0x12, 0x22, 0x31, 0x32])
def test_who_is_named_by_no_address_of_tcp_counts_as_the_proxy(family: int) -> None:
    """As the specification requires of receivers that do not support such addresses
    (section 2.2).
    """
    assert source(V4[:13] + bytes([family]) + V4[14:FIXED_BYTES], b"whatever") is None


@pytest.mark.parametrize("family", [0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41, 0xFF])
def test_no_other_family_is_legal(family: int) -> None:
    with pytest.raises(BadHeader):
        source(V4[:13] + bytes([family]) + V4[14:FIXED_BYTES], V4[FIXED_BYTES:])


def test_version_1_is_called_by_its_name() -> None:
    with pytest.raises(BadHeader, match="version 1"):
        rest_of(b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 7475\r\n"[:FIXED_BYTES])


@pytest.mark.parametrize("at", range(FIXED_BYTES - 2))
def test_each_changed_byte_is_noticed(at: int) -> None:
    changed = bytearray(V4)
    changed[at] ^= 0xFF
    with pytest.raises(BadHeader):
        parsed(bytes(changed))


def parsed(data: bytes) -> str | None:
    rest_of(data[:FIXED_BYTES])
    return source(data[:FIXED_BYTES], data[FIXED_BYTES:])


@given(st.binary(min_size=FIXED_BYTES, max_size=FIXED_BYTES), st.binary(max_size=64), st.booleans())
def test_whatever_comes(fixed: bytes, rest: bytes, signed: bool) -> None:
    if signed:
        fixed = V4[:12] + fixed[12:]
    try:
        assert 0 <= rest_of(fixed) <= REST_BYTES_MAX
        found = source(fixed, rest)
    except BadHeader:
        return
    if found is not None:
        socket.inet_pton(socket.AF_INET6 if ":" in found else socket.AF_INET, found)
