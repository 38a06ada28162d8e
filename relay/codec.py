"""The strict msgpack validator: only messages that match a table are accepted.

Envelopes between client and server (``wire.packing``) and messages on the workers' bus
(``bus.messages``) are msgpack arrays ``[op, field, ...]``. Each operation has a ``Shape``: a
NamedTuple and one check per field, exact in type (a bool is not an integer, bin is not a str),
range, length in bytes and UTF-8. msgpack itself accepts much more (NaN, extension types, maps, huge
claimed lengths); all of that is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict, cast, final

import msgpack

from relay import limits
from relay.errors import EnvelopeError
from relay.field_checks import (
    Check,
    binary,
    boolean,
    list_of,
    message,
    nil_or,
    text,
    tuple_of,
    uint,
    unread_fault,
)

__all__ = [
    "Check", "binary", "boolean", "list_of", "message", "nil_or", "text", "tuple_of", "uint",
]  # fmt: skip
"""The checks of a field belong to this module."""


# --- packing ----------------------------------------------------------------------------------
# One packer for the process: making one costs more than packing with it. ``pack`` of plain values
# runs no Python code, so that threads cannot meet inside it.
_PACKER: Final = msgpack.Packer(use_bin_type=True)
pack: Final = cast("Callable[[object], bytes]", _PACKER.pack)


def array_header(count: int) -> bytes:
    """Return the msgpack header for an array of ``count`` items that are already packed."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 65_536:
        return b"\xdc" + count.to_bytes(2, "big")
    raise ValueError("too many items for one array")


FIRST_MAX: Final = 3
FIRST_BYTES_MAX: Final = 512
"""Of a content of at most so many bytes, so many messages are unpacked one by one: HELLO and the
JOINs of a client that returns. What follows each is copied; for more, a streaming unpacker is
faster."""
VALUES_PER_STEP: Final = 512
"""For ``Unpacking``: about 60 messages of eight fields, about 0.2 ms."""
_new: Final = tuple.__new__
"""Creates a NamedTuple from all its fields, without the Python call of its own ``__new__``."""


# --- unpacking --------------------------------------------------------------------------------
class Shape(NamedTuple):
    """One row of a table: the type of an operation's message and a check for each field."""

    type: type[tuple[object, ...]]
    checks: tuple[Check, ...]
    make: Callable[..., object] | None = None
    """Creates the message from its checked fields, if they are not simply the fields of the type.
    """
    names: tuple[str, ...] = ()
    """Of the fields, if they differ from those of the type."""
    optional: tuple[Check, ...] = ()
    """For optional trailing fields: all or none of them are present, or the ``earlier`` ones."""
    missing: tuple[object, ...] = ()
    """The values of these fields if they are absent."""
    earlier: int = 0
    """How many of them there were before the others were added: these may be absent alone."""

    @property
    def field_names(self) -> tuple[str, ...]:
        """The names of the fields, in wire order."""
        return self.names or cast("tuple[str, ...]", self.type._fields)  # type: ignore[attr-defined]


Quick: TypeAlias = Callable[[list[object]], bool]
"""True if all checks of an operation would take these fields, as many as there are checks. It may
be False for some that they would take: the checks have the last word."""


class Unknown(NamedTuple):
    """An operation unknown to this side: its number is not in this direction's table."""

    op: int


class _Bounds(TypedDict):
    """What msgpack itself is configured to refuse."""

    max_array_len: int
    max_map_len: int
    max_ext_len: int
    max_str_len: int
    max_bin_len: int


@final
class _Values:
    """Counts the values of one message while msgpack, in C, unpacks it. Its ``list_hook``."""

    __slots__ = ("left", "most")

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def count(self, array: list[object]) -> list[object]:
        """Count a complete array. Raises EnvelopeError if all have too many elements together."""
        self.left -= len(array)
        if self.left < 0:
            raise EnvelopeError(f"more than {self.most} values in one message")
        return array


class Schema:
    """All operations that may arrive from one direction."""

    __slots__ = ("_bounds", "_fields_max", "_shapes", "count_max", "values_max")

    def __init__(
        self,
        shapes: Mapping[int, Shape],
        *,
        count_max: int,
        array_max: int,
        bytes_max: int = limits.RECORD_CONTENT_BYTES_MAX,
        values_max: int = 0,
        quick: Mapping[int, Quick] | None = None,
    ) -> None:
        """Create a validator.

        Args:
            shapes: operation number to its shape.
            count_max: messages in one content.
            array_max: items in any array, nested ones too.
            bytes_max: of one content, and of any str or bin in it.
            values_max: elements of all arrays of a message; 0: only limited by its size.
            quick: for the most frequent operations: see ``Quick``.
        """
        self._shapes: dict[
            int,
            tuple[Shape, tuple[Check, ...], Callable[..., object] | None, Quick | None],
        ] = {}
        for op, shape in shapes.items():
            assert len(shape.optional) == len(shape.missing), shape.type
            assert len(shape.checks + shape.optional) == len(shape.field_names), shape.type
            plain = shape.type.__bases__ == (tuple,)  # others create themselves: see wire.hello
            make = shape.make or (None if plain else shape.type)
            self._shapes[op] = shape, shape.checks, make, (quick or {}).get(op)
        self.count_max = count_max
        self.values_max = values_max
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
        messages, rest = self.unpack_first(content)
        if rest:
            unpacking = Unpacking(self, messages, rest)
            while not unpacking.done:
                unpacking.advance()
        return messages

    def unpack_first(self, content: bytes) -> tuple[list[Any], bytes]:
        """Return the first messages of a content, and what follows them: see ``Unpacking``.

        Raises:
            EnvelopeError: it does not begin with valid msgpack, or one of them is not legal.
        """
        if not content:
            raise EnvelopeError("a content without a message")
        count = min(FIRST_MAX, self.count_max) if len(content) <= FIRST_BYTES_MAX else 1
        messages: list[Any] = []
        while content and len(messages) < count:
            # msgpack's exceptions contain the peer's bytes. They are handled outside the blocks
            # that catch them, so that no other exception has them as its context. (mypyc does not
            # support ``from None``.)
            refused: Exception | None = None
            rest = b""
            try:
                # Three times faster than a streaming unpacker. Each value takes at least a byte,
                # so those of a short content need not be counted.
                counted = 0 < self.values_max < len(content)
                hook = _Values(self.values_max).count if counted else None
                value = msgpack.unpackb(
                    content, raw=False, strict_map_key=True, list_hook=hook, **self._bounds
                )
            except msgpack.ExtraData as more:
                # The stub lacks these. (Another name for the exception would be a cycle.)
                value, rest = more.unpacked, more.extra  # type: ignore[attr-defined]
            except _REFUSED as error:
                refused = error
            if refused is not None:
                raise _not_allowed(refused)
            messages.append(self.checked(value))
            content = rest
        return messages, content

    def new_decoder(self, content: bytes, values: _Values) -> msgpack.Unpacker:
        """Return an unpacker for a content, within the limits."""
        decoder = msgpack.Unpacker(
            raw=False,
            strict_map_key=True,
            max_buffer_size=len(content),
            list_hook=values.count if self.values_max else None,
            **self._bounds,
        )
        decoder.feed(content)
        return decoder

    def checked(self, value: object) -> object:
        """Return the message for an unpacked value. Raises EnvelopeError if it is not legal."""
        if type(value) is not list or not 1 <= (size := len(value)) <= self._fields_max:
            raise EnvelopeError("a message is not an array of a legal length")
        op = value[0]
        if type(op) is not int or not 0 <= op <= limits.U32_MAX:
            raise EnvelopeError("an operation is not a number from 0 to 2^32-1")
        known = self._shapes.get(op)
        if known is None:
            _check_unread(value)
            return Unknown(op)
        shape, checks, make, quick = known
        count = len(checks)
        fields = value[1 : count + 1]
        if size <= count:
            raise EnvelopeError(f"{shape.type.__name__} has fewer than {count} fields")
        if quick is None or not quick(fields):
            for index in range(count):
                if not checks[index](fields[index]):
                    field = shape.field_names[index]
                    raise EnvelopeError(f"{shape.type.__name__}: bad {field}")
        if shape.missing:
            if size == count + 1:
                fields.extend(shape.missing)
            else:
                fields += _optional(shape, value)
        elif size > count + 1:
            _check_unread(value[count + 1 :])
        if make is None:
            return _new(shape.type, fields)
        return make(*fields)


@final
class Unpacking:
    """The messages of one content, unpacked a few at a time.

    A record of 64 KiB may contain a thousand messages, or tens of thousands of values: unpacking it
    at once would make others wait too long. None of them may have an effect before all of them are
    known to be legal.
    """

    __slots__ = ("_decoder", "_end", "_schema", "_size", "_values", "done", "messages")

    def __init__(self, schema: Schema, messages: list[Any], rest: bytes) -> None:
        """Create.

        Args:
            schema: what is legal.
            messages: the first ones, to which the others are added.
            rest: of the content, after them.
        """
        self._schema = schema
        self._values = _Values(schema.values_max)
        self._decoder = schema.new_decoder(rest, self._values)
        self._size = len(rest)
        self._end = 0
        self.messages = messages
        """Those unpacked so far."""
        self.done = False
        """True once all are unpacked, and all of them are legal."""

    def advance(self) -> int:
        """Unpack some more, about ``VALUES_PER_STEP`` values; return their number.

        Unpacks all of them if the schema does not limit values.

        Raises:
            EnvelopeError: it is not a sequence of whole legal messages.
        """
        schema, values, decoder, messages = self._schema, self._values, self._decoder, self.messages
        used = 0
        refused: Exception | None = None
        try:
            for value in decoder:
                # Recorded here: after the last whole value, tell() also counts half a value's
                # header.
                self._end = decoder.tell()
                used += values.most - values.left
                values.left = values.most
                messages.append(schema.checked(value))
                if len(messages) > schema.count_max:
                    raise EnvelopeError(f"more than {schema.count_max} messages in one content")
                if used >= VALUES_PER_STEP:
                    return used
        except _REFUSED as error:
            refused = error
        if refused is not None:
            raise _not_allowed(refused)
        if self._end != self._size:
            raise EnvelopeError("a message is cut off at the end of its content")
        self.done = True
        return used


def _optional(shape: Shape, value: list[object]) -> list[object]:
    """Return the optional fields of a message with at least one of them."""
    optional = shape.optional
    fields = value[1 + len(shape.checks) :]
    count = len(fields)
    if count == shape.earlier:
        fields.extend(shape.missing[count:])
    elif count < len(optional):
        raise EnvelopeError(f"{shape.type.__name__} has some of its last fields, but not all")
    elif count > len(optional):
        _check_unread(fields[len(optional) :])
        del fields[len(optional) :]
    for index, check in enumerate(optional):
        if not check(fields[index]):
            field = shape.field_names[len(shape.checks) + index]
            raise EnvelopeError(f"{shape.type.__name__}: bad {field}")
    return fields


def unpack_array(data: bytes, checks: tuple[Check, ...], *, array_max: int) -> list[object]:
    """Return the fields of an array that is not a message but part of a message's field.

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
    """Return the names in an array.

    Raises:
        EnvelopeError: it is not an array of names.
    """
    try:
        value = msgpack.unpackb(data, raw=False, max_map_len=0, max_ext_len=0)
    except _REFUSED as error:
        raise _not_allowed(error) from None
    if not list_of(_NAME, limits.PAGE_ENTRIES_MAX)(value):
        raise EnvelopeError("not an array of names")
    return cast("list[str]", value)


_REFUSED: Final = (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError)


def _not_allowed(error: Exception) -> EnvelopeError:
    # msgpack's own message may quote the peer's bytes: only give the type.
    return EnvelopeError(f"not msgpack as allowed here ({type(error).__name__})")


def _check_unread(value: list[object]) -> None:
    fault = unread_fault(value)
    if fault is not None:
        raise EnvelopeError(fault)
