"""Named tuples: as those of ``typing``, in all that the program and its users see of them."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle  # noqa: TID251
import pkgutil
import typing
from typing import Any, get_type_hints

import pytest

import relay
from relay.named_tuples import NamedTuple


class Ours(NamedTuple):
    """A place."""

    x: int
    """How far to the right."""
    name: str | None = None
    rest: tuple[int, ...] = ()

    @property
    def double(self) -> int:
        """Return ``x`` twice."""
        return 2 * self.x


class Theirs(typing.NamedTuple):
    """A place."""

    x: int
    name: str | None = None
    rest: tuple[int, ...] = ()

    @property
    def double(self) -> int:
        return 2 * self.x


class Nothing(NamedTuple):
    """No fields."""


class Hidden(NamedTuple):
    """One that shows itself in its own way."""

    key: bytes

    def __repr__(self) -> str:
        return "Hidden()"


KINDS = pytest.mark.parametrize("kind", [Ours, Theirs])


@KINDS
def test_a_tuple_with_names(kind: Any) -> None:  # noqa: ANN401
    made = kind(1, name="a")
    assert made == (1, "a", ()) == tuple(made)
    assert (made.x, made.name, made.rest, made.double) == (1, "a", (), 2)
    assert hash(made) == hash((1, "a", ()))
    assert kind.__mro__ == (kind, tuple, object)
    assert (kind.__name__, kind.__qualname__, kind.__module__) == (kind.__name__,) * 2 + (__name__,)
    assert kind.__doc__ == "A place."
    assert not hasattr(made, "__dict__")
    with pytest.raises(AttributeError):
        made.x = 2
    with pytest.raises(AttributeError):
        made.other = 2


@KINDS
def test_the_methods_that_all_have(kind: Any) -> None:  # noqa: ANN401
    made = kind(1, rest=(2,))
    assert made._replace(x=3) == kind(3, None, (2,))
    assert made._asdict() == {"x": 1, "name": None, "rest": (2,)}
    assert kind._make([1, "a", ()]) == kind(1, "a")
    assert repr(made) == f"{kind.__name__}(x=1, name=None, rest=(2,))"
    assert kind._fields == ("x", "name", "rest")
    assert kind._field_defaults == {"name": None, "rest": ()}
    for copied in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301
        assert type(copied) is kind
        assert copied == made
    match made:
        case kind(x, None, rest=rest):
            assert (x, rest) == (1, (2,))
        case _:
            pytest.fail("no match")


@KINDS
def test_mistakes(kind: Any) -> None:  # noqa: ANN401
    for arguments, named, message in (
        ((), {}, "missing 1 required positional argument: 'x'"),
        ((1, "a", (), 4), {}, "takes from 2 to 4 positional arguments but 5 were given"),
        ((1,), {"y": 2}, "got an unexpected keyword argument 'y'"),
        ((1,), {"x": 2}, "got multiple values for argument 'x'"),
    ):
        with pytest.raises(TypeError, match=message):
            kind(*arguments, **named)
    with pytest.raises(TypeError, match="Expected 3 arguments, got 2"):
        kind._make([1, "a"])
    with pytest.raises((ValueError, TypeError), match="unexpected field names: \\['y'\\]"):
        kind(1)._replace(y=2)


@KINDS
def test_what_is_found_about_it(kind: Any) -> None:  # noqa: ANN401
    asked = inspect.signature(kind).parameters.values()
    assert [(one.name, one.default) for one in asked] == [
        ("x", inspect.Parameter.empty),
        ("name", None),
        ("rest", ()),
    ]
    assert str(inspect.signature(Ours)) == (
        "(x: 'int', name: 'str | None' = None, rest: 'tuple[int, ...]' = ())"
    )
    assert get_type_hints(kind) == {"x": int, "name": str | None, "rest": tuple[int, ...]}
    assert list(kind.__annotations__) == ["x", "name", "rest"]
    assert kind.x.__doc__ == "Alias for field number 0"


def test_none_and_one_field() -> None:
    assert Nothing() == ()
    assert repr(Nothing()) == "Nothing()"
    assert Hidden(b"key") == (b"key",)
    assert repr(Hidden(b"key")) == "Hidden()"


def test_no_module_takes_that_of_typing() -> None:
    """One that does costs every start of what imports it."""
    found = []
    for module in pkgutil.walk_packages(relay.__path__, "relay."):
        if module.name.endswith("__main__"):
            continue
        if vars(importlib.import_module(module.name)).get("NamedTuple") is typing.NamedTuple:
            found.append(module.name)
    assert found == []
