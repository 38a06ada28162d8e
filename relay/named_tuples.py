"""``typing.NamedTuple``, whose classes are created in a fraction of the time.

``typing`` compiles an expression for each annotation and a function for each class, and sets each
attribute of the class on its own. A client has about 200 such classes and a server 300: creating
them took a sixth of the time that a command needs to start. What ``NamedTuple`` creates here is the
same: a subclass of tuple with ``_fields``, ``_field_defaults``, ``_make``, ``_replace``,
``_asdict``, a signature and a pattern. It differs in this alone: ``__annotations__`` are strings,
as they are written, and a field without a default that follows one with a default is left to mypy.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined]
from collections.abc import Iterable
from functools import cache
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

_GLOBALS: Final[dict[str, Any]] = {
    "__builtins__": {},
    "__name__": __name__,
    "_tuple_new": tuple.__new__,
}


class _Shared:
    """The methods that all have in common, as of ``collections.namedtuple``."""

    def _replace(self: Any, /, **changes: Any) -> Any:  # noqa: ANN401
        """Return a new object with other values for some fields."""
        made = self._make(map(changes.pop, self._fields, self))
        if changes:
            raise ValueError(f"Got unexpected field names: {list(changes)!r}")
        return made

    def _asdict(self: Any) -> dict[str, Any]:
        """Return a dict of the fields' names and values."""
        return dict(zip(self._fields, self, strict=True))

    def __repr__(self: Any) -> str:
        pairs = zip(self._fields, self, strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __getnewargs__(self: Any) -> tuple[Any, ...]:
        """Return a plain tuple, for ``copy`` and ``pickle``."""
        return tuple(self)

    @classmethod
    def _make(cls: Any, values: Iterable[Any]) -> Any:  # noqa: ANN401
        """Make an object from an iterable of all values."""
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
        return made


_METHODS: Final = {
    name: value
    for name, value in vars(_Shared).items()
    if name in ("_make", "_replace", "_asdict", "__repr__", "__getnewargs__")
} | {"__replace__": _Shared._replace}


@cache
def _code(fields: int) -> CodeType:
    names = "".join(f"_{index}," for index in range(fields))
    made: FunctionType = eval(f"lambda _cls, {names}: _tuple_new(_cls, ({names}))", _GLOBALS)  # noqa: S307
    return made.__code__


@cache
def _getter(index: int) -> Any:  # noqa: ANN401
    return _tuplegetter(index, f"Alias for field number {index}")


class _NamedTupleMeta(type):
    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
        """Create ``NamedTuple`` itself, or a class from what a statement with this base defines."""
        if not bases:
            return super().__new__(cls, name, bases, namespace)
        annotations = namespace.get("__annotations__", {})
        fields = tuple(annotations)
        defaults = {field: namespace[field] for field in fields if field in namespace}
        # Of all classes with as many fields the code is the same, but for their names.
        new = FunctionType(
            _code(len(fields)).replace(co_varnames=("_cls", *fields)),
            _GLOBALS,
            "__new__",
            tuple(defaults.values()),
        )
        new.__qualname__ = f"{name}.__new__"
        new.__annotations__ = annotations
        attributes = {
            "__slots__": (),
            "_fields": fields,
            "_field_defaults": defaults,
            "__match_args__": fields,
            **_METHODS,
            **namespace,
            "__new__": new,
            **{field: _getter(index) for index, field in enumerate(fields)},
        }
        return type(name, (tuple,), attributes)


if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    class NamedTuple(metaclass=_NamedTupleMeta):
        """The base in ``class Point(NamedTuple):``. It is not among the bases of ``Point``."""
