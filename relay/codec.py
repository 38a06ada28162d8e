"""The strict msgpack validator: tables of messages, and nothing else gets through.

Envelopes between client and server (``wire.packing``) and messages on the workers' bus
(``bus.messages``) are msgpack arrays ``[op, field, ...]``. Each operation has a ``Shape``: a
NamedTuple and one check per field, exact in type (a bool is no integer, bin is no str), range,
length in bytes and UTF-8. msgpack itself accepts much more (NaN, extension types, maps, huge
claimed lengths); none of that passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict, cast

import msgpack

from relay import limits
from relay.errors import EnvelopeError

Check: TypeAlias = Callable[[object], bool]


# --- field checks -----------------------------------------------------------------------------
# Each check carries its wire type as its docstring: docs/protocol.md's tables are made from it.
def _described(check: Check, wire_type: str) -> Check:
    check.__doc__ = wire_type
    return check


def uint(maximum: int, minimum: int = 0) -> Check:
    """An integer from ``minimum`` to ``maximum``, never a bool."""

    def check(value: object) -> bool:
        return type(value) is int and minimum <= value <= maximum

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
    """Nil, or what another check takes."""

    def check(value: object) -> bool:
        return value is None or inner(value)

    return _described(check, f"nil or {inner.__doc__}")


def _boolean() -> Check:
    def check(value: object) -> bool:
        return value is True or value is False

    return _described(check, "bool")


boolean: Final = _boolean()


def list_of(inner: Check, count_max: int) -> Check:
    """An array of at most ``count_max`` items, each of which another check takes."""

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
                    and not _unread_fault(value[known:])
                )
            )
        )

    return _described(check, wire_type)


# --- packing ----------------------------------------------------------------------------------
# One packer for the process: making one costs more than packing with it. ``pack`` of plain values
# runs no Python code, so that threads cannot meet inside it.
_PACKER: Final = msgpack.Packer(use_bin_type=True)
pack: Final = cast("Callable[[object], bytes]", _PACKER.pack)


def array_header(count: int) -> bytes:
    """Return the msgpack header of an array of ``count`` items that are packed already."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65_536:
        return b"\xdc" + count.to_bytes(2, "big")
    raise ValueError("too many items for one array")


_new: Final = tuple.__new__
"""Makes a NamedTuple of all its fields, without the call of Python that its own ``__new__`` is."""


# --- unpacking --------------------------------------------------------------------------------
class Shape(NamedTuple):
    """One row of a table: the type of an operation's message and a check for each field."""

    type: type[tuple[object, ...]]
    checks: tuple[Check, ...]
    make: Callable[..., object] | None = None
    """Makes the message of its checked fields, where they are not simply the fields of the type."""
    names: tuple[str, ...] = ()
    """Of the fields, where they are not those of the type."""
    optional: tuple[Check, ...] = ()
    """Of fields that may follow, all or none of them."""
    missing: tuple[object, ...] = ()
    """The values of those where they do not follow."""

    @property
    def field_names(self) -> tuple[str, ...]:
        """The names of the fields, in wire order."""
        return self.names or cast("tuple[str, ...]", self.type._fields)  # type: ignore[attr-defined]


class Unknown(NamedTuple):
    """An operation that this side does not know: no number of this direction's table."""

    op: int


class _Bounds(TypedDict):
    """What msgpack itself is told to refuse."""

    max_array_len: int
    max_map_len: int
    max_ext_len: int
    max_str_len: int
    max_bin_len: int


class Schema:
    """All operations that may arrive from one direction."""

    __slots__ = ("_bounds", "_count_max", "_fields_max", "_shapes")

    def __init__(
        self,
        shapes: Mapping[int, Shape],
        *,
        count_max: int,
        array_max: int,
        bytes_max: int = limits.RECORD_CONTENT_BYTES_MAX,
    ) -> None:
        """Make a validator.

        Args:
            shapes: operation number to its shape.
            count_max: messages in one content.
            array_max: items in any array, nested ones too.
            bytes_max: of one content, and of any str or bin in it.
        """
        self._shapes: dict[int, tuple[Shape, tuple[Check, ...], Callable[..., object] | None]] = {}
        for op, shape in shapes.items():
            assert len(shape.optional) == len(shape.missing), shape.type
            assert len(shape.checks + shape.optional) == len(shape.field_names), shape.type
            plain = shape.type.__bases__ == (tuple,)  # others make themselves: see wire.hello
            self._shapes[op] = shape, shape.checks, shape.make or (None if plain else shape.type)
        self._count_max = count_max
        self._fields_max = limits.ENVELOPE_FIELDS_MAX
        self._bounds = _Bounds(
            max_array_len=array_max,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
        )

    def unpack(self, content: bytes) -> list[Any]:
        """Return the messages of one content, of the types that the shapes name.

        Raises:
            EnvelopeError: it is not a sequence of whole legal messages.
        """
        if not content:
            raise EnvelopeError("a content without a message")
        # What msgpack raises holds the peer's bytes. It is handled outside of the blocks that catch
        # it: no other exception has it as its context. (mypyc does not know ``from None``.)
        refused: Exception | None = None
        try:
            # The usual case, one message: three times faster than a streaming unpacker.
            value = msgpack.unpackb(content, raw=False, strict_map_key=True, **self._bounds)
        except msgpack.ExtraData:
            pass  # several
        except _REFUSED as error:
            refused = error
        else:
            return [self._checked(value)]
        if refused is not None:
            raise _not_allowed(refused)
        return self._unpack_many(content)

    def _unpack_many(self, content: bytes) -> list[object]:
        decoder = msgpack.Unpacker(
            raw=False, strict_map_key=True, max_buffer_size=len(content), **self._bounds
        )
        messages: list[object] = []
        end = 0
        refused: Exception | None = None
        try:
            decoder.feed(content)
            for value in decoder:
                # Noted here: after the last whole value, tell() counts half a value's header too.
                end = decoder.tell()
                messages.append(self._checked(value))
                if len(messages) > self._count_max:
                    raise EnvelopeError(f"more than {self._count_max} messages in one content")
        except _REFUSED as error:
            refused = error
        if refused is not None:
            raise _not_allowed(refused)
        if end != len(content):
            raise EnvelopeError("a message is cut off at the end of its content")
        return messages

    def _checked(self, value: object) -> object:
        if type(value) is not list or not 1 <= len(value) <= self._fields_max:
            raise EnvelopeError("a message is not an array of a legal length")
        op = value[0]
        if type(op) is not int or not 0 <= op <= limits.U32_MAX:
            raise EnvelopeError("an operation is not a number from 0 to 2^32-1")
        known = self._shapes.get(op)
        if known is None:
            _check_unread(value)
            return Unknown(op)
        shape, checks, make = known
        count = len(checks)
        fields = value[1 : count + 1]
        if len(fields) != count:
            raise EnvelopeError(f"{shape.type.__name__} has fewer than {count} fields")
        for index in range(count):
            if not checks[index](fields[index]):
                field = shape.field_names[index]
                raise EnvelopeError(f"{shape.type.__name__}: bad {field}")
        if shape.missing:
            if len(value) == count + 1:
                fields.extend(shape.missing)
            else:
                fields += _optional(shape, value)
        elif len(value) > count + 1:
            _check_unread(value[count + 1 :])
        if make is None:
            return _new(shape.type, fields)
        return make(*fields)


def _optional(shape: Shape, value: list[object]) -> list[object]:
    """Return the fields of a message that may be missing, and are not."""
    first = 1 + len(shape.checks)
    end = first + len(shape.optional)
    if len(value) < end:
        raise EnvelopeError(f"{shape.type.__name__} has some of its last fields, but not all")
    for index, check in enumerate(shape.optional, first):
        if not check(value[index]):
            raise EnvelopeError(f"{shape.type.__name__}: bad {shape.field_names[index - 1]}")
    if len(value) > end:
        _check_unread(value[end:])
    return value[first:end]


def unpack_array(data: bytes, checks: tuple[Check, ...], *, array_max: int) -> list[object]:
    """Return the fields of an array that is no message: one that stands in a message's field.

    Raises:
        EnvelopeError: it is not an array of exactly these fields.
    """
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=array_max,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=len(data),
            max_bin_len=len(data),
        )
    except _REFUSED as error:
        raise _not_allowed(error) from None
    if not tuple_of(*checks)(value):
        raise EnvelopeError("an array with other fields than these")
    return cast("list[object]", value)


_NAME: Final = text(64, 1)


def names_of(data: bytes) -> list[str]:
    """Return the names of an array of them.

    Raises:
        EnvelopeError: it is none.
    """
    try:
        value = msgpack.unpackb(data, raw=False, max_map_len=0, max_ext_len=0)
    except _REFUSED as error:
        raise _not_allowed(error) from None
    if not list_of(_NAME, limits.PAGE_ENTRIES_MAX)(value):
        raise EnvelopeError("not an array of names")
    return cast("list[str]", value)


_FIELD_TYPES: Final = frozenset({int, bool, float, str, bytes, list, type(None)})
_REFUSED: Final = (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError)


def _not_allowed(error: Exception) -> EnvelopeError:
    # msgpack's own words may quote the peer's bytes: name the type only.
    return EnvelopeError(f"not msgpack as allowed here ({type(error).__name__})")


def _unread_fault(value: list[object]) -> str | None:
    """Tell what is wrong with fields of a later version: nested too deep, or of no field's type.

    msgpack lets an empty map and an empty extension pass its bounds of 0. Iterative: no recursion
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


def _check_unread(value: list[object]) -> None:
    fault = _unread_fault(value)
    if fault is not None:
        raise EnvelopeError(fault)
