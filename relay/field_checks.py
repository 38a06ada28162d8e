"""Checks of one field of a message: exact in type, range and length. Pure.

Each has its wire type as its docstring: docs/protocol.md's tables are generated from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from relay import limits

Check: TypeAlias = Callable[[object], bool]
_SMALL: Final = 128
"""Lower limits are described by their digits, not as powers of two."""


def _described(check: Check, wire_type: str) -> Check:
    check.__doc__ = wire_type
    return check


def uint(maximum: int, minimum: int = 0) -> Check:
    """An integer from ``minimum`` to ``maximum``, never a bool."""

    def check(value: object) -> bool:
        return type(value) is int and minimum <= value <= maximum

    if maximum & (maximum + 1) or maximum < _SMALL:
        return _described(check, f"int {minimum}..{maximum}")
    bits = f"2^{maximum.bit_length()}-1"
    return _described(check, f"int {minimum}..{bits}" if minimum else f"int ≤ {bits}")


def text(bytes_max: int, chars_min: int = 0) -> Check:
    """A str of at most ``bytes_max`` bytes of UTF-8."""

    def check(value: object) -> bool:
        return (
            type(value) is str
            and chars_min <= len(value) <= bytes_max
            and (value.isascii() or len(value.encode()) <= bytes_max)
        )

    return _described(check, f"str {chars_min}..{bytes_max}")


def binary(minimum: int, maximum: int) -> Check:
    """Bytes, from ``minimum`` to ``maximum`` of them."""

    def check(value: object) -> bool:
        return type(value) is bytes and minimum <= len(value) <= maximum

    size = f"{minimum}" if minimum == maximum else f"{minimum}..{maximum}"
    return _described(check, f"bin {size}")


def nil_or(inner: Check) -> Check:
    """Nil, or what another check accepts."""

    def check(value: object) -> bool:
        return value is None or inner(value)

    return _described(check, f"nil or {inner.__doc__}")


def _boolean() -> Check:
    def check(value: object) -> bool:
        return value is True or value is False

    return _described(check, "bool")


boolean: Final = _boolean()


def list_of(inner: Check, count_max: int) -> Check:
    """An array of at most ``count_max`` items, each of which another check accepts."""

    def check(value: object) -> bool:
        return type(value) is list and len(value) <= count_max and all(map(inner, value))

    return _described(check, f"array of ({inner.__doc__})")


def tuple_of(*inner: Check) -> Check:
    """An array of exactly these fields."""
    count = len(inner)

    def check(value: object) -> bool:
        if type(value) is not list or len(value) != count:
            return False
        for field, one in zip(inner, value, strict=True):  # noqa: SIM110 - all() takes a third more
            if not field(one):
                return False
        return True

    return _described(check, "array [" + ", ".join(str(f.__doc__) for f in inner) + "]")


def message(
    op: int, checks: tuple[Check, ...], wire_type: str, optional: tuple[Check, ...] = ()
) -> Check:
    """A whole message of one operation inside another; fields of a later version may follow."""
    needed = 1 + len(checks)
    known = needed + len(optional)
    allowed = (needed, *range(known, limits.ENVELOPE_FIELDS_MAX + 1))

    def check(value: object) -> bool:
        return (
            type(value) is list
            and len(value) in allowed
            and type(value[0]) is int
            and value[0] == op
            and all(f(v) for f, v in zip(checks, value[1:], strict=False))
            and (
                len(value) == needed
                or (
                    all(f(v) for f, v in zip(optional, value[needed:], strict=False))
                    and not unread_fault(value[known:])
                )
            )
        )

    return _described(check, wire_type)


_FIELD_TYPES: Final = frozenset({int, bool, float, str, bytes, list, type(None)})


def unread_fault(value: list[object]) -> str | None:
    """Return what is wrong with fields of a later version: nested too deep, or of an invalid type.

    msgpack accepts an empty map and an empty extension despite limits of 0. Iterative: no recursion
    error.
    """
    level: list[object] = [value]
    for _ in range(limits.ENVELOPE_DEPTH_MAX):
        level = [inner for outer in level if type(outer) is list for inner in outer]
        if not level:
            return None
        if not _FIELD_TYPES.issuperset(map(type, level)):
            return "a map or an extension type"
    if any(type(inner) is list for inner in level):
        return f"nested deeper than {limits.ENVELOPE_DEPTH_MAX}"
    return None
